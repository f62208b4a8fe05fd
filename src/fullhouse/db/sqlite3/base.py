"""Django's SQLite backend with what a server with many threads needs: writers wait for one another instead of failing.

- WAL: readers and one writer do not wait for each other. synchronous=NORMAL is safe with it, and spares a sync for
  each commit.
- BEGIN IMMEDIATE: a transaction that will write says so at once, and waits, instead of failing in its middle.
- A busy timeout that outlasts a queue of writers. Foreign keys are on, as always with Django.

SQLite has no sessions to run out of, so there are no slots and no pool.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base

BUSY_TIMEOUT_S = 20
INIT_COMMAND = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"


class DatabaseWrapper(base.DatabaseWrapper):
    """SQLite; every option of OPTIONS overrides what is set here."""

    def get_connection_params(self) -> dict[str, Any]:
        if "pool" in self.settings_dict["OPTIONS"]:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}]: SQLite has no sessions to pool; remove OPTIONS['pool']."
            )
        options = {
            "timeout": BUSY_TIMEOUT_S,
            "transaction_mode": "IMMEDIATE",
            "init_command": INIT_COMMAND,
            **self.settings_dict["OPTIONS"],
        }
        self.settings_dict["OPTIONS"] = options
        return super().get_connection_params()
