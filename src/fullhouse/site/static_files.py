"""Static files: who serves them. Where it is fullhouse, WhiteNoise does it, in front of the application.

Django serves them with DEBUG only. Media, which users upload, are never served here.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from fullhouse.errors import ConfigurationError
from fullhouse.settings.table import Settings

# The names that Django's ManifestStaticFilesStorage gives: 12 digits of a hash of the content, which never changes.
_HASHED = r"\.[0-9a-f]{12}\.[^/]+$"
_APP = "django.contrib.staticfiles"
_MIDDLEWARE = "WhiteNoiseMiddleware"
_ELSE = "or let a web server in front do it: fullhouse deploy nginx"


@dataclass(frozen=True)
class StaticFiles:
    """said: who serves them, for people; empty for a site that has none. folder, url: what fullhouse serves, if any."""

    said: str = ""
    folder: str | None = None
    url: str = ""

    def in_front_of(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """The application, behind what answers for the files."""
        if self.folder is None:
            return application
        from whitenoise import WhiteNoise

        served: Callable[..., Any] = WhiteNoise(
            application, root=self.folder, prefix=self.url, immutable_file_test=_HASHED
        )
        return served


def static_files(settings: Settings, django: Any) -> StaticFiles:
    """Who serves the static files of a site. django: its settings.

    Raises ConfigurationError where fullhouse was told to, and cannot.
    """
    if not any(f"{app}.".startswith(f"{_APP}.") for app in django.INSTALLED_APPS) or not django.STATIC_URL:
        return StaticFiles()
    address = urlsplit(django.STATIC_URL)
    if not settings.static:
        return StaticFiles("not served here (static is off)")
    if address.netloc:
        return StaticFiles(f"by {address.netloc} (STATIC_URL)")
    if any(path.endswith(_MIDDLEWARE) for path in django.MIDDLEWARE):
        return StaticFiles("by WhiteNoise, which is in MIDDLEWARE")
    missing = _missing(django.STATIC_ROOT)
    if not missing:
        unseen = (django.FORCE_SCRIPT_NAME or "").rstrip("/")  # by the application
        said = f"{address.path} from {django.STATIC_ROOT}"
        return StaticFiles(said, str(django.STATIC_ROOT), address.path.removeprefix(unseen))
    if "static" in settings.sources:
        raise ConfigurationError(f"static is on, but {missing}.")
    return StaticFiles(f"by nobody: {missing}, {_ELSE}")


def _missing(folder: Any) -> str:
    """What there must be before they can be served; empty: nothing more."""
    if not folder:
        return "STATIC_ROOT is not set. Set it to a folder and run manage.py collectstatic"
    if find_spec("whitenoise") is None:
        return "WhiteNoise is not installed. Run pip install 'fullhouse[static]'"
    if not os.path.isdir(folder):
        return f"{folder} (STATIC_ROOT) does not exist. Run manage.py collectstatic"
    return ""
