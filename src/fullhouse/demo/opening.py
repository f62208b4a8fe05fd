"""Opening the box office: the tables, the events, the seats."""

import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TextIO

import django


@dataclass(frozen=True)
class Show:
    """An event to put on sale, `days_ahead` days after the box office opens."""

    name: str
    rows: int
    seats_per_row: int
    tagline: str = ""
    venue: str = "The House"
    price: str = "20.00"
    days_ahead: int = 7


PROGRAMME = (
    Show(
        name="Midnight in Montmartre",
        tagline="Five musicians, one candle, and songs that end long after the last train.",
        venue="The Cellar",
        rows=9,
        seats_per_row=14,
        price="24.00",
        days_ahead=6,
    ),
    Show(
        name="The Lighthouse Keeper's Daughter",
        tagline="A play about a storm, a secret, and a light that must never go out.",
        venue="Old Harbour Theatre",
        rows=16,
        seats_per_row=22,
        price="38.50",
        days_ahead=12,
    ),
    Show(
        name="Mahler: Resurrection",
        tagline="Two hundred singers, ten horns off stage, and a finale that lifts the roof.",
        venue="Philharmonic Hall",
        rows=26,
        seats_per_row=30,
        price="64.00",
        days_ahead=19,
    ),
    Show(
        name="Comets & Satellites",
        tagline="The farewell tour. Loud, bright, and never again.",
        venue="Riverside Arena",
        rows=40,
        seats_per_row=36,
        price="79.00",
        days_ahead=33,
    ),
)


ADMIN = "boxoffice"


def prepare(shows: Sequence[Show] = PROGRAMME, out: TextIO | None = None) -> None:
    """Make the tables and put `shows` on sale, telling `out` (default: sys.stdout) what is done.

    Runs on the settings in DJANGO_SETTINGS_MODULE, or else on the demo's own. What is there already stays as
    it is, so that a second run changes nothing. Leaves no connection open, which a fork would share.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fullhouse.demo.settings")
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from fullhouse.demo.models import Event

    out = out or sys.stdout
    call_command("migrate", verbosity=0, interactive=False)
    for show in shows:
        if _put_on_sale(show):
            out.write(f"On sale: {show.name}, {show.rows * show.seats_per_row} seats\n")
            out.flush()
    out.write(f"The box office is open: {Event.objects.count()} events.\n")
    connections.close_all()


def open_admin(out: TextIO | None = None) -> None:
    """Gather the static files and make an account for /admin/, telling `out` its password. After `prepare`.

    The password is made once, and kept beside the secret key.
    """
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connections

    call_command("collectstatic", verbosity=0, interactive=False)
    path = settings.STATIC_ROOT.parent / "admin_password"
    accounts = get_user_model().objects
    if not path.exists() or not accounts.filter(username=ADMIN).exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(9))
        accounts.filter(username=ADMIN).delete()
        accounts.create_superuser(ADMIN, password=path.read_text())
    (out or sys.stdout).write(f"The admin is at /admin/: user {ADMIN}, password {path.read_text()}\n")
    connections.close_all()


def _put_on_sale(show: Show) -> bool:
    """Make the event with all its seats, or nothing; return whether it was missing."""
    from django.db import transaction
    from django.utils import timezone

    from fullhouse.demo.models import Event, Seat

    day = timezone.now() + timedelta(days=show.days_ahead)
    with transaction.atomic():
        event, missing = Event.objects.get_or_create(
            name=show.name,
            defaults={
                "tagline": show.tagline,
                "venue": show.venue,
                "price": show.price,
                "rows": show.rows,
                "seats_per_row": show.seats_per_row,
                "when": day.replace(hour=20, minute=0, second=0, microsecond=0),
            },
        )
        if missing:
            Seat.objects.bulk_create(
                (
                    Seat(event=event, row=row, number=number)
                    for row in range(1, show.rows + 1)
                    for number in range(1, show.seats_per_row + 1)
                ),
                batch_size=500,
            )
    return missing
