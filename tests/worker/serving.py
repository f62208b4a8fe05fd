"""Real gunicorn processes on 127.0.0.1, and a client that shows every byte."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
PATIENCE_S = 20.0  # for what must happen; nothing is judged by how soon


class Gunicorn:
    """One running gunicorn; its log grows in `log`."""

    def __init__(self, process: subprocess.Popen, address, log: Path) -> None:
        self.process = process
        self.address = address
        self.log = log

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def logged(self) -> str:
        return self.log.read_text()

    def wait_logged(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.logged().count(text) >= times, f"{text!r} in the log:\n{self.logged()}")

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces on one connection, and read until the server closes it."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return read_to_end(client)


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


def read_to_end(client: socket.socket) -> bytes:
    received = b""
    while piece := client.recv(65536):
        received += piece
    return received


def read_response(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one response that has a Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(65536)
        assert piece, f"the connection ended after {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        piece = client.recv(65536)
        assert piece, f"the connection ended after {len(body)} of {length} bytes"
        body += piece
    return head, body


@contextmanager
def gunicorn(tmp_path: Path, app: str = "apps:echo", worker_class="fullhouse.worker.Worker", **settings):
    """Serve `app` with gunicorn's `settings`, given as Python literals. Stops it, and checks that it can."""
    tmp_path.mkdir(exist_ok=True)
    config, log = tmp_path / "config.py", tmp_path / "log"
    defaults = {
        "worker_class": worker_class,
        "threads": 4,
        "graceful_timeout": 5,
        "control_socket_disable": True,
    }
    given = {name: value for name, value in settings.items() if not name.startswith("_")}
    lines = [f"{name} = {value!r}" for name, value in (defaults | given).items()]
    config.write_text("\n".join([settings.get("_code", ""), *lines]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        environment = os.environ | {"PYTHONPATH": f"{SOURCE}:{HERE}", "PYTHONWARNINGS": "error"}
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            str(config),
            "-b",
            f"fd://{listener.fileno()}",
            app,
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                pass_fds=[listener.fileno()],
                env=environment,
                cwd=tmp_path,
                stdout=output,
                stderr=output,
            )
    server = Gunicorn(process, address, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
