from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("boxoffice", "0001_initial")]

    operations: ClassVar[list[Operation]] = [
        migrations.AddField("order", "confirmed", models.DateTimeField(editable=False, null=True)),
    ]
