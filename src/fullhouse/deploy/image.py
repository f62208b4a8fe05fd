"""A Containerfile for the site, and what is left out of its image. Pure."""

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

from fullhouse.deploy.deployment import Deployment
from fullhouse.errors import ConfigurationError

PORT = 8000
# The one of OpenTelemetry's exporter for Prometheus.
METRICS_PORT = 9464
# Above the ids that Debian gives to people and services; the same in every image, so that volumes keep their owner.
USER_ID = 10001
# In the only folder that anybody may write to; it is made at the start, for its owner alone.
RUNTIME_FOLDER = "/tmp/fullhouse"  # noqa: S108
MIGRATE = ("python3", "manage.py", "migrate", "--no-input")

# By the names of files that pin every dependency: what is copied, and how it is installed into /venv.
_INSTALLERS = {
    "uv.lock": (
        "uv.lock pyproject.toml",
        "/venv/bin/pip install uv && "
        "VIRTUAL_ENV=/venv /venv/bin/uv sync --active --frozen --no-dev --no-install-project",
    ),
    "requirements.txt": ("requirements.txt", "/venv/bin/pip install --requirement requirements.txt"),
}
_IGNORED = (
    *(".git", ".gitignore", "Containerfile", "Dockerfile", "compose.yaml"),
    *("**/__pycache__", "**/*.pyc", "**/.venv", "**/venv", "**/node_modules", "**/.pytest_cache"),
    *("**/.env", "**/*.env", "**/*.pem", "**/*.key", "**/*.sqlite3", "**/*.log"),
)


def containerfile(site: Deployment) -> str:
    """Two stages: what builds the dependencies stays out of the image."""
    files, install = _installer(site.locks)
    libraries = _libraries(site.drivers)
    return f"""# fullhouse deploy docker {site.project}
#
#   docker build --file Containerfile --tag {site.project} .
#   podman build --format docker --tag {site.project} .       (an OCI image has no health check)
#   podman run --read-only --tmpfs /tmp --stop-timeout {site.stop_s} --env-file {site.project}.env \\
#       --publish {PORT}:{PORT} {site.project}
#
# What is written: /tmp, for locks, sockets, and bodies that are too long for the transfer memory{_written(site)}.
# Secrets come at run time, from the environment: none is in a layer. The plan sees --cpus and --memory.{_told(site)}
ARG BASE=docker.io/library/python:{sys.version_info.major}.{sys.version_info.minor}-slim

FROM ${{BASE}} AS build
{_packages(libraries.build)}WORKDIR /build
RUN python3 -m venv /venv
# A layer that is made anew only where these change.
COPY {files} ./
RUN {install}

FROM ${{BASE}}
{_packages(libraries.run)}COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\
    FULLHOUSE_RUNTIME_FOLDER={RUNTIME_FOLDER}{_settings(site)}
WORKDIR /app
COPY . .
{_static(site)}{_media(site)}# No name and no home: a number is all that a user of a container needs.
USER {USER_ID}:{USER_ID}
EXPOSE {PORT}
# It drains, for graceful_timeout, {site.graceful_timeout_s} s, and ends what is left: --stop-timeout is above that.
STOPSIGNAL SIGTERM
# Whether the server answers at all; /-/ready says whether it should be sent requests.
HEALTHCHECK --interval=10s --timeout=3s --start-period={site.boot_timeout_s}s --retries=3 \\
    CMD {json.dumps(["python3", "-c", _PROBE])}
CMD {json.dumps(served_words(site))}
"""


_PROBE = f"import urllib.request as ask; ask.urlopen('http://127.0.0.1:{PORT}/-/live', timeout=2)"


def ignored(site: Deployment) -> str:
    """What is no part of an image: secrets, databases, and what the build makes itself."""
    inside = [path.removeprefix("/app/") for _, path in media(site).values() if path.startswith("/app/")]
    return "\n".join([f"# fullhouse deploy docker {site.project}", *_IGNORED, *inside]) + "\n"


class _Libraries(NamedTuple):
    """Debian packages. build: to compile what has no wheel; run: what that needs."""

    build: Sequence[str] = ()
    run: Sequence[str] = ()


def _libraries(drivers: Sequence[str]) -> _Libraries:
    if "MySQLdb" in drivers:  # mysqlclient has no wheel for Linux
        return _Libraries(("gcc", "libc6-dev", "python3-dev", "libmariadb-dev", "pkg-config"), ("libmariadb3",))
    return _Libraries()


def _packages(names: Sequence[str]) -> str:
    if not names:
        return ""
    return (
        f"RUN apt-get update && apt-get install --yes --no-install-recommends {' '.join(names)} && "
        "rm -rf /var/lib/apt/lists/*\n"
    )


def _installer(locks: Sequence[str]) -> tuple[str, str]:
    for name, found in _INSTALLERS.items():
        if name in locks:
            return found
    raise ConfigurationError(
        f"An image needs to know what to install, and there is no {' and no '.join(_INSTALLERS)} in this folder.\n"
        "Run: pip freeze > requirements.txt"
    )


def served_words(site: Deployment, *addresses: str) -> list[str]:
    """Without the interpreter of this machine. Raises ConfigurationError for an address of the user's."""
    words = list(site.command[site.command.index("serve") :])
    if any(word == "--bind" or word.startswith("--bind=") for word in words):
        raise ConfigurationError(
            f"--bind is not for an image: it listens on port {PORT}, where its health check and the other files ask.\n"
            "Leave it out here, and publish that port as another."
        )
    return ["fullhouse", *words, *(f"--bind={one}" for one in addresses or (f"0.0.0.0:{PORT}",))]


def variables(site: Deployment, observe: str) -> dict[str, str]:
    """What decides what is served, with what a container decides for itself."""
    return {
        **site.environment,
        "FULLHOUSE_RUNTIME_FOLDER": RUNTIME_FOLDER,
        "FULLHOUSE_WORKERS": str(site.workers),
        "FULLHOUSE_OBSERVE": observe,
    }


def media(site: Deployment) -> dict[str, tuple[str, str]]:
    """The folders that users upload to: URL and path in the image, by the name of a volume."""
    found = [(url, path) for url, path in site.files.items() if url != site.static_url]
    inside = [(url, path.replace(site.folder, "/app", 1) if _is_in(path, site.folder) else path) for url, path in found]
    return {url.strip("/").replace("/", "-"): (url, path) for url, path in inside}


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _settings(site: Deployment) -> str:
    module = site.environment.get("DJANGO_SETTINGS_MODULE")
    return f" DJANGO_SETTINGS_MODULE={module}" if module else ""


def _told(site: Deployment) -> str:
    names = [name for name in site.environment if name != "DJANGO_SETTINGS_MODULE"]
    return f"\n# Set here, and to be set there as well: {', '.join(names)}." if names else ""


def _written(site: Deployment) -> str:
    folders = [path for _, path in media(site).values()]
    return f"; and {', '.join(folders)}, to be volumes" if folders else ""


def _media(site: Deployment) -> str:
    """Their owner: a new volume takes it from here."""
    folders = [json.dumps(path) for _, path in media(site).values()]
    return f"RUN install --directory --owner={USER_ID} --group={USER_ID} {' '.join(folders)}\n" if folders else ""


def _static(site: Deployment) -> str:
    if site.static_url not in site.files:
        return ""
    return (
        "# Where the settings need variables for it, name them before the command.\n"
        "RUN python3 manage.py collectstatic --no-input\n"
    )
