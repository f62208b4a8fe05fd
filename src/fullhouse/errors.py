"""Every error that fullhouse raises, in one tree.

A message is the fact, its numbers and the remedy, in one or two lines. The class decides the exit code of
the command that met it; `docs/reference/exit-codes.md` lists them.
"""

from typing import ClassVar


class FullhouseError(Exception):
    """The root. `str(error)` is what a user reads; `exit_code` is what a script reads."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(FullhouseError):
    """An option, a project or a file named by the user cannot be used as it stands."""

    exit_code = 2


class PlanError(FullhouseError):
    """No plan fits the limits: serving would run into "too many connections"."""

    exit_code = 2


class DatabaseError(FullhouseError):
    """A database could not be asked: down, wrong password, no such database."""

    exit_code = 3


class ListenError(FullhouseError):
    """The address cannot be listened on: in use, not ours, not permitted."""

    exit_code = 4


class ApplicationError(FullhouseError):
    """The Django application does not load."""

    exit_code = 5


class NotRunningError(FullhouseError):
    """The server that a command is about does not run, or several do."""

    exit_code = 6


class AlreadyRunningError(FullhouseError):
    """The server that a command would start runs already."""

    exit_code = 7


def described(error: BaseException) -> str:
    """Another library's error in one line: its kind and what it says."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"
