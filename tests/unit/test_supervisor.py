"""What the supervisor must survive at its edges: descriptors used again, output nobody takes, callers who send junk."""

import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fullhouse.supervisor.control import ControlServer
from fullhouse.supervisor.processes import ending
from fullhouse.supervisor.reports import LONGEST, Reports, send
from fullhouse.supervisor.supervisor import callbacks


def test_what_is_ready_is_not_mixed_up_with_who_gets_its_descriptor_next() -> None:
    """A generation is reaped and the next one spawned in the same round: the pipes have the same number."""
    selector = selectors.DefaultSelector()
    pipes = [os.pipe(), os.pipe()]
    called: list[str] = []

    def replace(other: int) -> Callable[[], None]:
        def callback() -> None:
            called.append("ready")
            selector.unregister(pipes[other][0])
            os.dup2(fresh[0], pipes[other][0])
            selector.register(pipes[other][0], selectors.EVENT_READ, lambda: called.append("fresh"))

        return callback

    fresh = os.pipe()
    for number, (read, write) in enumerate(pipes):
        selector.register(read, selectors.EVENT_READ, replace(1 - number))
        os.write(write, b"x")
    for callback in callbacks(selector, 0):
        callback()
    assert called == ["ready"]
    selector.close()
    for descriptor in [*fresh, *pipes[0], *pipes[1]]:
        os.close(descriptor)


def test_a_full_disk_under_its_own_output_does_not_end_it() -> None:
    code = "from fullhouse.supervisor.supervisor import say; say(b'lost'); print('alive')"
    with open("/dev/full", "w") as full:
        answer = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=True)
    assert answer.stdout == b"alive\n"


@pytest.mark.parametrize(
    ("status", "expected"), [(3 << 8, "exit code 3"), (9, "killed by SIGKILL"), (40, "killed by signal 40")]
)
def test_every_ending_has_words(status: int, expected: str) -> None:
    assert ending(status) == expected


def test_a_request_that_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    selector = selectors.DefaultSelector()
    server = ControlServer(tmp_path / "control", selector, lambda request, client: client.answer({"ok": True}))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "control"))
        client.sendall(b"[" * 4000 + b"\n")
        for _ in range(2):  # it is accepted, and read
            for callback in callbacks(selector, 20):
                callback()
        assert b"JSON object" in client.recv(4096)
    server.close()
    selector.close()


def test_a_report_that_no_clipping_makes_short_is_sent_whole() -> None:
    read, write = os.pipe()
    budgets = {f"/run/fullhouse/{number:0100}": number for number in range(100)}
    send(write, "planned", budgets=budgets, text="x" * LONGEST)
    reports = Reports(read)
    assert reports.read() == [{"event": "planned", "budgets": budgets, "text": "x"}]
    reports.close()
    os.close(write)


def test_the_process_that_serves_on_loads_neither_django_nor_gunicorn() -> None:
    code = (
        "import sys, fullhouse.supervision; print(sorted({'django', 'gunicorn', 'fullhouse.site'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == "[]\n"
