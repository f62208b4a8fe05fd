"""Events, their seats, and the orders that sell them."""

from typing import Self

from django.db import models
from django.db.models.functions import Abs
from django.urls import reverse

BUYER_LENGTH = 80


def row_label(row: int) -> str:
    """The letters of a row: 1 is A, 26 is Z, 27 is AA."""
    letters = ""
    while row > 0:
        row, letter = divmod(row - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


class EventQuerySet(models.QuerySet["Event"]):
    def with_free(self) -> Self:
        """Count the free seats of each event into `free`; the soonest event first."""
        free = models.Count("seats", filter=models.Q(seats__sold=False))
        return self.annotate(free=free).order_by("when", "id")


class Event(models.Model):
    name = models.CharField(max_length=80, unique=True)
    tagline = models.CharField(max_length=160)
    venue = models.CharField(max_length=80)
    when = models.DateTimeField()
    price = models.DecimalField(max_digits=7, decimal_places=2)
    rows = models.PositiveSmallIntegerField()
    seats_per_row = models.PositiveSmallIntegerField()

    objects = EventQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("event", args=[self.pk])

    @property
    def capacity(self) -> int:
        return self.rows * self.seats_per_row

    @property
    def hue(self) -> int:
        """The colour of the event's pages, in degrees: rose, teal, amber, indigo, ..."""
        return (self.pk * 205 + 135) % 360


class SeatQuerySet(models.QuerySet["Seat"]):
    def free(self) -> Self:
        return self.filter(sold=False)

    def nearest_to(self, seat: "Seat") -> Self:
        """The seats of the same event, those around `seat` first. A row apart counts as two seats apart."""
        apart = 2 * Abs(models.F("row") - seat.row) + Abs(models.F("number") - seat.number)
        return self.filter(event_id=seat.event_id).order_by(apart, "row", "number")


class Seat(models.Model):
    event = models.ForeignKey(Event, models.CASCADE, related_name="seats")
    # Signed, though never negative: MySQL refuses an unsigned difference below zero.
    row = models.SmallIntegerField()
    number = models.SmallIntegerField()
    sold = models.BooleanField(default=False)

    objects = SeatQuerySet.as_manager()

    class Meta:
        ordering = ("row", "number")
        constraints = (models.UniqueConstraint(fields=["event", "row", "number"], name="one_seat_per_place"),)

    def __str__(self) -> str:
        return f"Row {self.row_label}, seat {self.number}"

    @property
    def row_label(self) -> str:
        return row_label(self.row)


class Order(models.Model):
    # The database itself refuses a second order for a seat.
    seat = models.OneToOneField(Seat, models.PROTECT)
    buyer = models.CharField(max_length=BUYER_LENGTH)
    created = models.DateTimeField(auto_now_add=True, db_index=True)
    confirmed = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-created", "-id")

    def __str__(self) -> str:
        return f"{self.seat} for {self.buyer}"

    def get_absolute_url(self) -> str:
        return reverse("order", args=[self.pk])
