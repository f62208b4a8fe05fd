"""GeoDjango's MySQL backend on the pool."""

from django.contrib.gis.db.backends.mysql import base

from fullhouse.db.mysql.base import Pooled


class DatabaseWrapper(Pooled, base.DatabaseWrapper):
    """ENGINE "fullhouse.db.mysql_gis"."""
