"""ENGINE "fullhouse.db.mysql_gis": GeoDjango on MySQL and MariaDB."""
