"""gunicorn worker class for Django: a loop that waits for clients, threads that run complete requests."""

from fullhouse.worker.worker import Worker

__all__ = ["Worker"]
