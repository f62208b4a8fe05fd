"""Serving: the listening sockets, and gunicorn's master with its workers."""
