"""GeoDjango's PostGIS backend on the pool."""

from django.contrib.gis.db.backends.postgis import base

from fullhouse.db.postgresql.base import Pooled


class DatabaseWrapper(Pooled, base.DatabaseWrapper):
    """ENGINE "fullhouse.db.postgis"."""
