"""ENGINE "fullhouse.db.sqlite3": SQLite set up for a server with many threads."""
