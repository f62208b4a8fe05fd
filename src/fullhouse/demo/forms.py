from django import forms
from django.core.exceptions import ValidationError

from fullhouse.demo.models import BUYER_LENGTH


class BuyerForm(forms.Form):
    """Who buys, from the page's form or from a program's JSON."""

    buyer = forms.CharField(
        max_length=BUYER_LENGTH,
        error_messages={"required": "Please tell us your name."},
    )

    def clean_buyer(self) -> str:
        buyer: str = self.cleaned_data["buyer"]
        try:
            buyer.encode()
        except UnicodeEncodeError:  # JSON can carry half a character, which no database stores
            raise ValidationError("This name is not text.") from None
        return buyer

    def problem(self) -> str:
        return " ".join(str(error) for error in self.errors["buyer"])
