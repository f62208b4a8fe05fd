from typing import ClassVar

import django.db.models.deletion
from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="Event",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("name", models.CharField(max_length=80, unique=True)),
                ("tagline", models.CharField(max_length=160)),
                ("venue", models.CharField(max_length=80)),
                ("when", models.DateTimeField()),
                ("price", models.DecimalField(decimal_places=2, max_digits=7)),
                ("rows", models.PositiveSmallIntegerField()),
                ("seats_per_row", models.PositiveSmallIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Seat",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("row", models.SmallIntegerField()),
                ("number", models.SmallIntegerField()),
                ("sold", models.BooleanField(default=False)),
                (
                    "event",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="seats",
                        to="boxoffice.event",
                    ),
                ),
            ],
            options={
                "ordering": ("row", "number"),
            },
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("buyer", models.CharField(max_length=80)),
                ("created", models.DateTimeField(auto_now_add=True, db_index=True)),
                (
                    "seat",
                    models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, to="boxoffice.seat"),
                ),
            ],
            options={
                "ordering": ("-created", "-id"),
            },
        ),
        migrations.AddConstraint(
            model_name="seat",
            constraint=models.UniqueConstraint(fields=("event", "row", "number"), name="one_seat_per_place"),
        ),
    ]
