"""ENGINE "fullhouse.db.spatialite": GeoDjango on SQLite with SpatiaLite."""
