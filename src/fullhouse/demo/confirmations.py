"""The confirmation of an order: a task, which runs beside the web workers."""

from django.core.mail import send_mail
from django.utils import timezone

try:
    from django.tasks import task
except ImportError:  # Django 5.2, for which the package django-tasks has them
    from django_tasks import task  # type: ignore[import-not-found,no-redef,unused-ignore]

from fullhouse.demo.models import Order


@task()
def confirm(order_id: int) -> None:
    """Send the mail, and note when."""
    order = Order.objects.select_related("seat__event").get(pk=order_id)
    text = f"Dear {order.buyer},\n\nthe seat is yours: {order.seat} for {order.seat.event}.\n"
    send_mail("Your ticket", text, "boxoffice@example.org", ["buyer@example.org"])
    order.confirmed = timezone.now()
    order.save(update_fields=["confirmed"])
