"""Servers under measurement, started on a port of their own, waited for and ended; and the order of their turns."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

START_S = 30
STOP_S = 20

T = TypeVar("T")


def rotated(contenders: Sequence[T], round_number: int) -> list[T]:
    """The contenders in another order each round: who comes first finds another machine than who comes last."""
    first = round_number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def family(pid: int) -> list[int]:
    """A process, and all below it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [pid, *(one for child in children for one in family(child))]


def cpu_s(pid: int) -> float:
    """What a process, and all below it, have computed, in seconds; the system counts it in steps of 10 ms."""
    stats = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in family(pid)]
    return sum(int(ticks) for fields in stats for ticks in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(
    name: str, command: Sequence[object], port: int, path: str, *, folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; the process, once it answers GET `path`; what it says is kept for the error.

    Raises RuntimeError where it never does.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            if not _answers(process, port, path):
                errors.seek(0)
                raise RuntimeError(f"{name} does not answer; exit code {process.poll()}\n{errors.read().decode()}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with suppress(ProcessLookupError):  # workers that outlive their master would slow down who comes next
                os.killpg(process.pid, signal.SIGKILL)


def _answers(process: subprocess.Popen[bytes], port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode()
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(request)
            if client.recv(12).startswith(b"HTTP/1."):
                return True
        time.sleep(0.1)
    return False
