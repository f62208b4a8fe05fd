"""Who serves static files, and what a site's owner hears of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.settings.layers import layered
from fullhouse.settings.table import Settings
from fullhouse.site import static_files as module
from fullhouse.site.static_files import StaticFiles, static_files

APPS = ["django.contrib.staticfiles"]
ON = layered(Settings(), {"static": True}, "FULLHOUSE in mysite.settings")
OFF = layered(Settings(), {"static": False}, "FULLHOUSE in mysite.settings")


def django(**changed: Any) -> SimpleNamespace:
    settings = {"INSTALLED_APPS": APPS, "MIDDLEWARE": [], "FORCE_SCRIPT_NAME": None}
    settings |= {"STATIC_URL": "/static/", "STATIC_ROOT": None}
    return SimpleNamespace(**{**settings, **changed})


def test_they_are_served_where_they_are_collected(tmp_path: Path) -> None:
    found = static_files(Settings(), django(STATIC_ROOT=tmp_path))
    assert found == StaticFiles(f"/static/ from {tmp_path}", str(tmp_path), "/static/")


def test_below_a_prefix_the_application_sees_the_rest_of_the_path(tmp_path: Path) -> None:
    found = static_files(
        Settings(), django(STATIC_ROOT=tmp_path, STATIC_URL="/shop/static/", FORCE_SCRIPT_NAME="/shop")
    )
    assert found.url == "/static/"


@pytest.mark.parametrize("changed", [{"INSTALLED_APPS": []}, {"STATIC_URL": None}])
def test_nothing_is_said_of_a_site_that_has_none(changed: dict[str, Any]) -> None:
    assert static_files(Settings(), django(**changed)) == StaticFiles()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"STATIC_URL": "https://cdn.example/s/"}, "by cdn.example (STATIC_URL)"),
        ({"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware"]}, "by WhiteNoise, which is in MIDDLEWARE"),
        ({}, "by nobody: STATIC_ROOT is not set. Set it to a folder and run manage.py collectstatic, or let a web"),
        ({"STATIC_ROOT": "/nowhere/at/all"}, "by nobody: /nowhere/at/all (STATIC_ROOT) does not exist. Run manage.py"),
    ],
)
def test_what_is_said_where_fullhouse_serves_none(changed: dict[str, Any], said: str) -> None:
    found = static_files(Settings(), django(**changed))
    assert found.said.startswith(said)
    assert found.folder is None


def test_without_the_library_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert "pip install 'fullhouse[static]'" in static_files(Settings(), django(STATIC_ROOT=tmp_path)).said
    with pytest.raises(ConfigurationError, match="static is on, but WhiteNoise is not installed"):
        static_files(ON, django(STATIC_ROOT=tmp_path))


def test_the_option_turns_it_off(tmp_path: Path) -> None:
    assert static_files(OFF, django(STATIC_ROOT=tmp_path)) == StaticFiles("not served here (static is off)")


def test_what_was_asked_for_and_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="static is on, but STATIC_ROOT is not set"):
        static_files(ON, django())
