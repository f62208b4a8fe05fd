"""GeoDjango's SpatiaLite backend set up for a server with many threads."""

from django.contrib.gis.db.backends.spatialite import base

from fullhouse.db.sqlite3 import base as sqlite3


class DatabaseWrapper(sqlite3.DatabaseWrapper, base.DatabaseWrapper):
    """ENGINE "fullhouse.db.spatialite"."""
