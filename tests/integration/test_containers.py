"""A container of the matrix goes with the process that made it, however that one ends."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import containers
from podman import IMAGE, require_base_image
from support import DEADLINE_S, wait_until

HOLD = """
import sys
from containers import Container
with Container("trixie", sys.argv[1]):
    print("runs", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def name() -> Iterator[str]:
    require_base_image()
    name = f"fullhouse-test-{uuid.uuid4().hex}"
    yield name
    containers._podman(["rm", "--force", "--ignore", name])


def exists(name: str) -> bool:
    return containers._podman(["container", "exists", name]).returncode == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_container_goes_with_its_maker(name: str, end: signal.Signals | None) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", HOLD, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(containers.__file__).parent)},
    )
    with maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "runs\n"
        assert exists(name)
        if end is None:
            maker.communicate(timeout=DEADLINE_S)
        else:
            maker.send_signal(end)
    wait_until(lambda: not exists(name), "the container is gone")


def test_the_container_of_a_dead_process_is_removed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(DEADLINE_S)
    containers._output(["create", f"--name={name}", f"--label={containers.LABEL}={gone.pid}", IMAGE, "cat"])
    containers.remove_orphans()
    assert not exists(name)


def test_the_container_of_a_living_process_stays(name: str) -> None:
    containers._output(["create", f"--name={name}", f"--label={containers.LABEL}={os.getpid()}", IMAGE, "cat"])
    containers.remove_orphans()
    assert exists(name)
