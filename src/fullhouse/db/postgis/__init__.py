"""ENGINE "fullhouse.db.postgis": GeoDjango on PostgreSQL with PostGIS."""
