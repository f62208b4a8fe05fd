"""From a planned project to the facts that `fullhouse deploy` writes down."""

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from fullhouse.cli.verbs import log_path
from fullhouse.deploy.deployment import Account, Deployment
from fullhouse.deploy.files import WITHOUT_SECRETS, write
from fullhouse.errors import ConfigurationError
from fullhouse.plan.sizing import memory_for
from fullhouse.settings.table import OPTIONS
from fullhouse.site.databases import accounts, drivers
from fullhouse.site.planned import Planned

# Variables of the caller that decide what is served, and how.
DECISIVE = ("DJANGO_SETTINGS_MODULE", "FULLHOUSE_", "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY")


def deployment(planned: Planned, options: Sequence[str]) -> Deployment:
    """The facts. options: of `fullhouse serve`, repeated in the command."""
    settings = planned.settings
    command = [sys.executable, "-m", "fullhouse", "serve", planned.project.name, *options]
    return Deployment(
        project=planned.project.name,
        user=_user(),
        folder=os.getcwd(),
        command=command,
        environment={name: value for name, value in sorted(os.environ.items()) if name.startswith(DECISIVE)},
        addresses=[f"127.0.0.1{one}" if one.startswith(":") else one for one in settings.bind],
        backlog=settings.backlog,
        has_tls=settings.certfile is not None,
        graceful_timeout_s=settings.graceful_timeout,
        companions_s=max((ceil(one.graceful_timeout) for one in planned.plan.companions), default=0),
        stop_delay_s=settings.stop_delay,
        boot_timeout_s=settings.boot_timeout,
        timeout_s=settings.timeout,
        keepalive_s=settings.keepalive,
        max_body=settings.max_body,
        has_own_worker=settings.worker_class == OPTIONS["worker_class"].default,
        log=os.path.abspath(settings.log_file) if settings.log_file else str(log_path(planned.project.name, None)),
        files=_files(planned.project.django),
        observe=settings.observe,
        static_url=str(planned.project.django.STATIC_URL or ""),
        drivers=drivers(),
        hosts=settings.hosts,
        workers=planned.plan.workers,
        requests=planned.plan.requests,
        servers=[server for server in planned.plan.servers if server.limit.pooled],
        memory=memory_for(planned.plan.workers, planned.plan.threads, planned.plan.machine.worker_memory),
        accounts={alias: Account(*facts) for alias, facts in accounts().items()},
        locks=[path.name for path in Path.cwd().iterdir() if path.is_file()],
    )


def _user() -> str:
    """The user to run the site as: the one that called sudo, not root."""
    if os.geteuid() == 0 and (caller := os.environ.get("SUDO_USER")):
        return caller
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the system knows no name for this user
        return str(os.geteuid())


def _files(django: Any) -> dict[str, str]:
    """Folders by URL, of the static and media files that Django's settings keep on this host."""
    pairs = [(django.STATIC_URL, django.STATIC_ROOT), (django.MEDIA_URL, django.MEDIA_ROOT)]
    return {url: str(folder) for url, folder in pairs if folder and url and url.startswith("/") and url != "/"}


def deploy(kind: str, planned: Planned, options: Sequence[str], folder: str | None) -> str:
    """The files as one text, or a line for each that was written into `folder`; none there is overwritten.

    Raises ConfigurationError.
    """
    files = write(kind, deployment(planned, options))
    return "\n".join(files.values()).rstrip() if folder is None else _write_into(Path(folder), files)


def _write_into(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        try:
            # Their environment may hold secrets: no other user may read them.
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                if name in WITHOUT_SECRETS:
                    os.chmod(file.fileno(), 0o644)
        except OSError as error:
            raise ConfigurationError(f"{folder / name} cannot be written: {error.strerror}.") from error
    return "\n".join(f"{folder / name} is written." for name in files)
