"""Start another package's tests on the database, and with the engine, that ECOSYSTEM_JOB names, and record them.

    python tools/ecosystem_start.py runtests.py ARGUMENTS
    python tools/ecosystem_start.py -m pytest ARGUMENTS

Whatever settings the tests come with, each entry of their DATABASES gets our server and ENGINE; what it says of
transactions and of its test database remains.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from django.conf import LazySettings, settings
from django.test.runner import DiscoverRunner

from recording import Record, RecordingPlugin, RecordingResult

# Of an entry of DATABASES, and of its TEST.
_KEPT = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "TIME_ZONE", "DISABLE_SERVER_SIDE_CURSORS")
_KEPT_OF_TEST = ("MIRROR", "DEPENDENCIES", "MIGRATE", "SERIALIZE")

_job = json.loads(os.environ["ECOSYSTEM_JOB"])


def _database(alias: str, given: dict[str, Any]) -> dict[str, Any]:
    kept = {name: given[name] for name in _KEPT if name in given}
    test = {name: given["TEST"][name] for name in _KEPT_OF_TEST if name in given.get("TEST", {})}
    names = {"NAME": f"{_job['name']}_{alias}".replace("-", "_"), "TEST": test}
    return {**kept, **_job["database"], **names}


def _replace_databases() -> None:
    """In settings of either kind: those of a module, and those that `configure` makes."""
    holder = settings._wrapped
    given = getattr(holder, "DATABASES", None) or {"default": {}}
    holder.DATABASES = {alias: _database(alias, entry) for alias, entry in given.items()}
    for name, value in _job["settings"].items():
        setattr(holder, name, value)


def _after(method: Any) -> Any:
    def replaced(*arguments: Any, **settings: Any) -> None:
        method(*arguments, **settings)
        _replace_databases()

    return replaced


def main() -> None:
    LazySettings._setup = _after(LazySettings._setup)
    LazySettings.configure = _after(LazySettings.configure)
    record = RecordingResult.record = Record(_job["record"])
    DiscoverRunner.get_resultclass = lambda self: RecordingResult
    del sys.argv[0]
    if sys.argv[0] == "-m":
        sys.path[0] = str(Path.cwd())
        del sys.argv[0]
        if sys.argv[0] == "pytest":
            import pytest

            sys.exit(pytest.main(sys.argv[1:], plugins=[RecordingPlugin(record)]))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as if it had been started itself
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
