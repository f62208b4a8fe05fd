"""Settings of the box office, from the environment:

FULLHOUSE_DEMO_DB          sqlite (default), mysql, mariadb or postgresql
FULLHOUSE_DEMO_ENGINE      a Django engine in place of fullhouse's for that database
FULLHOUSE_DEMO_FOLDER      where the SQLite file, the keys, static files and mails live (default: build/demo)
FULLHOUSE_DEMO_SECRET_KEY  in place of the key that is made and kept in that folder
FULLHOUSE_DEMO_HOST, _PORT, _USER, _PASSWORD, _NAME
                           of a database server (default: the database `fullhouse` on 127.0.0.1)
"""

import os
import secrets
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

ENGINES = {
    "sqlite": "fullhouse.db.sqlite3",
    "mysql": "fullhouse.db.mysql",
    "mariadb": "fullhouse.db.mysql",
    "postgresql": "fullhouse.db.postgresql",
}


def _variable(name: str, default: str = "") -> str:
    return os.environ.get(f"FULLHOUSE_DEMO_{name}", default)


def _make_folder() -> Path:
    folder = Path(_variable("FOLDER", "build/demo")).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"the box office cannot make its folder {folder}: {error.strerror}. Name another in FULLHOUSE_DEMO_FOLDER."
        ) from error
    return folder


def _secret_key(folder: Path) -> str:
    """The key kept in `folder`. Workers that start at once agree on it: only one link can be made."""
    if given := _variable("SECRET_KEY"):
        return given
    path = folder / "secret_key"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=folder) as draft:
            draft.write(secrets.token_urlsafe(50))
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, path)
    return path.read_text()


def _database(folder: Path) -> dict[str, Any]:
    kind = _variable("DB", "sqlite")
    if kind not in ENGINES:
        raise ImproperlyConfigured(
            f"FULLHOUSE_DEMO_DB={kind!r} is not known to the box office: choose {', '.join(ENGINES)}."
        )
    engine = _variable("ENGINE", ENGINES[kind])
    if kind == "sqlite":
        return {"ENGINE": engine, "NAME": folder / "boxoffice.sqlite3"}
    return {
        "ENGINE": engine,
        "NAME": _variable("NAME", "fullhouse"),
        "HOST": _variable("HOST", "127.0.0.1"),
        "PORT": _variable("PORT"),
        "USER": _variable("USER", "fullhouse"),
        "PASSWORD": _variable("PASSWORD"),
        "OPTIONS": {} if kind == "postgresql" else {"charset": "utf8mb4"},
    }


_folder = _make_folder()

SECRET_KEY = _secret_key(_folder)
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", "testserver"]
DATABASES = {"default": _database(_folder)}

# Orders are confirmed by a task, where the package that keeps tasks in the database is installed.
CONFIRMS_ORDERS = find_spec("django_tasks_db") is not None

INSTALLED_APPS = [
    "fullhouse.demo.apps.BoxOfficeConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *(["django_tasks_db"] if CONFIRMS_ORDERS else []),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = _folder / "mail"
STATIC_URL = "/static/"
STATIC_ROOT = _folder / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
ROOT_URLCONF = "fullhouse.demo.urls"
WSGI_APPLICATION = "fullhouse.demo.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

# Django reports its errors to nobody unless DEBUG is on or ADMINS read mail.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"terminal": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["terminal"], "level": "ERROR", "propagate": False}},
}
