"""fullhouse: run Django under gunicorn with the house full."""

__version__ = "0.1.0"
