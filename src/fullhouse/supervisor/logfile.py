"""A log file that rotates itself: NAME, NAME.1 and so on. A disk that is full costs lines, never the site."""

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from fullhouse.errors import ConfigurationError

ROTATE_AT = 20 << 20
KEPT = 20


class LogFile:
    """Appends bytes. Once it `takes_output`, the standard output and error of this process go into it too.

    Raises ConfigurationError where the file cannot be opened.
    """

    def __init__(self, path: Path, *, rotate_at: int = ROTATE_AT, kept: int = KEPT) -> None:
        self.path = path
        self._rotate_at = rotate_at
        self._kept = kept
        self.takes_output = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = self._open()
        except OSError as error:
            raise ConfigurationError(
                f"log_file {path} cannot be written: {error.strerror}.\nChoose another with --log-file."
            ) from error

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            if os.fstat(self._descriptor).st_size + len(data) > self._rotate_at:
                self._rotate()
        with suppress(OSError):
            os.write(self._descriptor, data)

    def reopen(self) -> None:
        """Continue in a new file, if ours was moved away."""
        with suppress(OSError):
            old, self._descriptor = self._descriptor, self._open()
            os.close(old)
            if self.takes_output:
                self.take_output()

    def take_output(self) -> None:
        self.takes_output = True
        os.dup2(self._descriptor, 1)
        os.dup2(self._descriptor, 2)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> None:
        names = [str(self.path), *(self._numbered(number) for number in range(1, self._kept + 1))]
        for old, new in reversed([*pairwise(names)]):
            with suppress(FileNotFoundError):
                os.replace(old, new)
        self.reopen()

    def _numbered(self, number: int) -> str:
        return f"{self.path}.{number}"
