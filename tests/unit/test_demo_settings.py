"""The demo's settings say what they cannot use, and keep their secret to themselves."""

import os
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Run the settings with these FULLHOUSE_DEMO_* variables and no others."""
    for name in os.environ:
        if name.startswith("FULLHOUSE_DEMO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FULLHOUSE_DEMO_FOLDER", str(tmp_path))

    def run(**variables: str) -> dict[str, Any]:
        for name, value in variables.items():
            monkeypatch.setenv(f"FULLHOUSE_DEMO_{name}", value)
        return runpy.run_module("fullhouse.demo.settings")

    return run


def test_sqlite_is_the_default(settings: Settings, tmp_path: Path) -> None:
    database = settings()["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == tmp_path / "boxoffice.sqlite3"


@pytest.mark.parametrize(
    ("kind", "engine", "options"),
    [
        ("mysql", "django.db.backends.mysql", {"charset": "utf8mb4"}),
        ("mariadb", "django.db.backends.mysql", {"charset": "utf8mb4"}),
        ("postgresql", "django.db.backends.postgresql", {}),
    ],
)
def test_servers(settings: Settings, kind: str, engine: str, options: dict[str, str]) -> None:
    place = {"HOST": "db.example", "PORT": "4711", "USER": "ada", "PASSWORD": "pw", "NAME": "house"}
    assert settings(DB=kind, **place)["DATABASES"]["default"] == {
        "ENGINE": engine,
        "OPTIONS": options,
        **place,
    }


def test_another_engine(settings: Settings) -> None:
    assert settings(DB="mysql", ENGINE="some.engine")["DATABASES"]["default"]["ENGINE"] == "some.engine"


def test_unknown_database_is_refused(settings: Settings) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'oracle' is not known.*sqlite, mysql, mariadb, postgresql"):
        settings(DB="oracle")


def test_a_folder_that_cannot_be_made_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ImproperlyConfigured, match=r"Not a directory.*FULLHOUSE_DEMO_FOLDER"):
        settings(FOLDER=str(file / "folder"))


def test_the_secret_key_is_made_once_per_folder(settings: Settings, tmp_path: Path) -> None:
    first = settings()["SECRET_KEY"]
    assert len(first) > 50
    assert settings()["SECRET_KEY"] == first
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0
    assert settings(FOLDER=str(tmp_path / "other"))["SECRET_KEY"] != first
    assert settings(SECRET_KEY="given")["SECRET_KEY"] == "given"


def test_workers_that_start_at_once_agree_on_the_secret_key(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def other_worker_is_faster(source: str, target: Path) -> None:
        target.write_text("the other worker's key")
        link(source, target)

    monkeypatch.setattr(os, "link", other_worker_is_faster)
    assert settings()["SECRET_KEY"] == "the other worker's key"
