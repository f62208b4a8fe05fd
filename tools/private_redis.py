"""A Redis of one's own, which forgets everything at its end, and as much of its protocol as a tool needs."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import programs
from server_guard import HOST

START_TIMEOUT_S, STOP_TIMEOUT_S, ANSWER_TIMEOUT_S = 30.0, 20.0, 10.0


class RedisError(Exception):
    """It does not start."""


@contextlib.contextmanager
def private_redis() -> Iterator[tuple[str, int]]:
    """Its address, with a free port."""
    with socket.create_server((HOST, 0)) as listener:
        address: tuple[str, int] = listener.getsockname()
    host, port = address
    with TemporaryDirectory() as folder:
        command = [programs.path("redis-server"), "--bind", host, "--port", str(port), "--save", "", "--dir", folder]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(address):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RedisError(f"Redis does not start at {host}:{port}\n{log.read_text()}")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _answers(address: tuple[str, int]) -> bool:
    try:
        return ask(address, "PING") == b"PONG"
    except OSError:
        return False


def ask(address: tuple[str, int], *words: str) -> bytes:
    """The answer to one command, which is a number or a short text."""
    with socket.create_connection(address, timeout=ANSWER_TIMEOUT_S) as client:
        client.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)]))
        lines = client.recv(1024).split(b"\r\n")
    return lines[1] if lines[0].startswith(b"$") else lines[0][1:]
