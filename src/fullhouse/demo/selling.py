"""The one place where seats are sold."""

from django.conf import settings
from django.db import transaction

from fullhouse.demo.models import Order, Seat


class SeatTaken(Exception):  # noqa: N818  a fact of business, not a fault
    """Somebody else has bought the seat."""


def sell(seat: Seat, buyer: str) -> Order:
    """Sell `seat` to `buyer`, or raise SeatTaken. However many try at once, one succeeds.

    The conditional UPDATE decides: the database lets one transaction change the row, and when the others
    come to it, it is no longer free. The task of confirming it is kept in the same transaction.
    """
    with transaction.atomic():
        if Seat.objects.free().filter(pk=seat.pk).update(sold=True) == 0:
            raise SeatTaken(f"{seat} has just been sold to somebody else.")
        order = Order.objects.create(seat=seat, buyer=buyer)
        if settings.CONFIRMS_ORDERS:
            from fullhouse.demo.confirmations import confirm

            confirm.enqueue(order.pk)
        return order
