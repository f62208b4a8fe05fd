"""Where `start` lets the processes write."""

import os
from pathlib import Path

import pytest

from fullhouse.cli import verbs
from fullhouse.errors import ConfigurationError


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_names_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number without an entry in passwd."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(ConfigurationError, match=r"^User 12345 has no home directory for the log file\.\nGive"):
        verbs.log_path("mysite", None)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert verbs.log_path("mysite", "8000") == Path("/state/fullhouse/mysite-8000.log")


def test_a_log_file_that_is_named_is_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str]] = []
    monkeypatch.setattr(verbs, "_launch", lambda project, words: launched.append(words))
    monkeypatch.setattr(verbs.instances, "running", lambda folder: [])
    verbs.start("mysite", None, ["--log-file=/tmp/named.log"])
    assert launched == [["serve", "mysite", "--log-file=/tmp/named.log"]]
