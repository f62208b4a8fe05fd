"""Where the slot files of a user live, and who may touch them.

A process that can open a slot file can hold back every slot, so the folder and the file must be ours alone.
"""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from fullhouse.errors import ConfigurationError

VARIABLE = "FULLHOUSE_RUNTIME_FOLDER"
_SYSTEM_FOLDER = Path("/run/fullhouse")
_TEMPORARY_FOLDER = Path("/tmp")  # noqa: S108  what we put there is checked by open_private_folder


def runtime_folder(system: Path = _SYSTEM_FOLDER, temporary: Path = _TEMPORARY_FOLDER) -> Path:
    """The private folder of this user's slot files, locks and sockets.

    The one that FULLHOUSE_RUNTIME_FOLDER names; else the first that can be used of `system`, where it is ours or can be
    made, and one in `temporary`. These depend on the user and the host only: a login shell, a cron job and a service of
    one user have other environments, and must see the same budget. Where neither can be used, because the file system
    is read-only or another user was there first, it is systemd's RUNTIME_DIRECTORY, or one in XDG_RUNTIME_DIR.
    Raises ConfigurationError.
    """
    if named := os.environ.get(VARIABLE):
        _make_usable(Path(named))
        return Path(named)
    user = os.geteuid()
    with suppress(OSError):  # exists; or we are not root; or there is no /run, as on macOS
        system.mkdir(mode=0o700)
    candidates = [system if _owner(system) == user else temporary / f"fullhouse-{user}"]
    if folder := os.environ.get("RUNTIME_DIRECTORY"):
        candidates.append(Path(folder.partition(":")[0]))
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(folder) / "fullhouse")
    refusals = []
    for candidate in candidates:
        try:
            _make_usable(candidate)
        except ConfigurationError as error:
            refusals.append(str(error))
        else:
            return candidate
    raise ConfigurationError(
        f"{refusals[0]}\nOr name a private folder in {VARIABLE}, the same for every process of the site."
    )


def _make_usable(folder: Path) -> None:
    with suppress(OSError):  # opening it shows what is wrong
        folder.mkdir(mode=0o700)
    os.close(open_private_folder(folder))
    if not os.access(folder, os.W_OK):
        raise ConfigurationError(f"{folder} cannot be written: its file system is read-only.")


def open_private_folder(folder: Path) -> int:
    """A descriptor of an existing folder that only we can write; ConfigurationError for any other.

    As long as the descriptor is open, it holds the shared `flock` that makes systemd-tmpfiles leave the
    folder and its files alone, whatever their age.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be opened as a folder ({error.strerror}): "
            "create it with mode 0700, as the user of the site; a symbolic link is not accepted."
        ) from error
    try:
        require_private(folder, os.fstat(descriptor), 0o755)
    except ConfigurationError:
        os.close(descriptor)
        raise
    with suppress(BlockingIOError):  # a cleaner is at work at this moment
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def open_private_file(path: Path, folder: int) -> int:
    """A descriptor of a file in `folder`, made where it is missing. Raises ConfigurationError for one of others."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be opened as a slot file ({error.strerror}): remove it, or use another folder; "
            "a symbolic link is not accepted."
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{path} is not a regular file: remove it, or use another folder.")
        require_private(path, status, 0o600)
    except ConfigurationError:
        os.close(descriptor)
        raise
    return descriptor


def require_private(path: Path, status: os.stat_result, widest_mode: int) -> None:
    """Refuse, with a ConfigurationError, what another user owns or has more rights to than `widest_mode`."""
    user = os.geteuid()
    if status.st_uid != user:
        raise ConfigurationError(
            f"{path} belongs to uid {status.st_uid}, and this process runs as uid {user}: "
            "run all processes of a site as one user."
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o777 & ~widest_mode:
        raise ConfigurationError(
            f"{path} has mode {mode:04o}, which lets other users interfere: chmod {widest_mode:04o} {path}"
        )


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None
