"""gunicorn's `pidfile`: of the supervisor, which outlives the generations that it starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from gunicorn.pidfile import Pidfile

from fullhouse.errors import AlreadyRunningError, ConfigurationError


@contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Keep this process's id in the file as long as the block takes; None: in no file.

    Raises AlreadyRunningError where the process that it names runs, ConfigurationError where it cannot be written.
    """
    if path is None:
        yield
        return
    file = Pidfile(path)
    try:
        file.create(os.getpid())
    except RuntimeError as error:
        raise AlreadyRunningError(f"pidfile: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"pidfile {path} cannot be written: {error.strerror}.") from error
    try:
        yield
    finally:
        file.unlink()
