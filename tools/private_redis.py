"""A Redis of one's own, which forgets everything at its end, and as much of its protocol as a tool needs."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import programs

START_TIMEOUT_S, STOP_TIMEOUT_S, ANSWER_TIMEOUT_S = 30.0, 20.0, 10.0


class RedisError(Exception):
    """It does not start."""


@contextlib.contextmanager
def private_redis(host: str = "127.0.0.1", port: int | None = None) -> Iterator[tuple[str, int]]:
    """Its address; `port` is a free one unless it is given."""
    if port is None:
        with socket.create_server((host, 0)) as listener:
            port = listener.getsockname()[1]
    with TemporaryDirectory() as folder:
        command = [programs.path("redis-server"), "--bind", host, "--port", str(port), "--save", "", "--dir", folder]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(host, port):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RedisError(f"Redis does not start at {host}:{port}\n{log.read_text()}")
                time.sleep(0.05)
            yield host, port
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def _answers(host: str, port: int) -> bool:
    try:
        return ask((host, port), "PING") == b"PONG"
    except OSError:
        return False


def ask(address: tuple[str, int], *words: str) -> bytes:
    """The answer to one command, which is a number or a short text."""
    with socket.create_connection(address, timeout=ANSWER_TIMEOUT_S) as client:
        client.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)]))
        lines = client.recv(1024).split(b"\r\n")
    return lines[1] if lines[0].startswith(b"$") else lines[0][1:]
