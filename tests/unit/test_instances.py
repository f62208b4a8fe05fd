"""The lock of a running supervisor, and commands that look at it."""

import fcntl
import os
from pathlib import Path

import pytest

from fullhouse.errors import AlreadyRunningError
from fullhouse.supervisor import instances


def test_a_look_at_the_wrong_moment_does_not_stop_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, descriptor = instances.claim(tmp_path, "mysite", "8000", {})
    os.close(descriptor)
    look = os.open(instance.lock, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)  # as `status` has it for a moment
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        os.close(look)

    monkeypatch.setattr(instances.time, "sleep", wait)
    instance, descriptor = instances.claim(tmp_path, "mysite", "8000", {})
    assert len(looks) == 1
    assert [one.facts["port"] for one in instances.running(tmp_path)] == ["8000"]
    with pytest.raises(AlreadyRunningError, match="mysite is already running on 8000"):
        instances.claim(tmp_path, "mysite", "8000", {})
    instances.release(instance, descriptor)
    assert instances.running(tmp_path) == []
