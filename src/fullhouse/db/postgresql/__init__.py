"""ENGINE "fullhouse.db.postgresql": PostgreSQL through psycopg 3."""
