"""fullhouse: a production server for Django that never exceeds the database's connection limit."""

__version__ = "0.1.0"
