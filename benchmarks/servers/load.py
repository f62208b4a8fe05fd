"""The clients: wrk at full speed, requests at a fixed rate, and clients that are slow or idle."""

import re
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

import programs

UPLOAD_SCRIPT = 'wrk.method = "POST"\nwrk.body = string.rep("x", 1048576)\n'
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True)
class Closed:
    """What wrk saw of clients that each ask again as soon as they are answered. rate: good answers a second."""

    rate: float
    p99_s: float


def closed_loop(port: int, seconds: int, clients: int, *, path: str = "/", script: Path | None = None) -> Closed:
    """Ask with `clients` connections. Answers other than 2xx count for nothing."""
    command = [programs.path("wrk"), "-t1", f"-c{clients}", f"-d{seconds}", "--latency", "--timeout", "10"]
    command += ["-s", str(script)] if script else []
    command.append(f"http://127.0.0.1:{port}{path}")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    output = finished.stdout
    if finished.returncode:  # as when a server accepts nobody any more
        return Closed(0.0, inf)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    number, unit = re.search(r"99%\s+([\d.]+)(\w+)", output).groups()
    return Closed(rate - (int(failed[1]) / seconds if failed else 0.0), float(number) * _UNITS_S[unit])


def requests_per_second(port: int, seconds: int, clients: int, script: Path | None = None) -> float:
    return closed_loop(port, seconds, clients, script=script).rate


def _read_response(sock: socket.socket) -> None:
    """All of it: what is left of one would pass for the next one, and come early."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _received(sock)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        body += _received(sock)


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the server has ended the connection")
    return data


def latencies_s(port: int, rate: float, seconds: int, clients: int = 8) -> list[float]:
    """Latencies at `rate` requests/s, counted from the moment each request should have been sent."""
    found: list[float] = []
    start = time.monotonic() + 0.1

    def client(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(number, int(rate * seconds), clients):
                due = start + index / rate
                time.sleep(max(0.0, due - time.monotonic()))
                sock.sendall(REQUEST)
                _read_response(sock)
                found.append(time.monotonic() - due)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


SLOW = {
    "headers": b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow:",
    "bodies": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000,
    "readers": REQUEST,
    "idle": REQUEST,
}


@contextmanager
def attached(port: int, kind: str, count: int) -> Iterator[None]:
    """Keep `count` connections that are slow in one way, a byte per second each at most, or idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 1000)), hard))
    clients, stop = [], threading.Event()
    try:
        for _ in range(count):
            client = socket.socket()
            if kind == "readers":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(20)
            client.connect(("127.0.0.1", port))
            client.sendall(SLOW[kind])
            if kind == "idle":
                client.recv(4096)
            clients.append(client)
        trickle = threading.Thread(target=_trickle, args=(clients, kind, stop))
        trickle.start()
        try:
            yield
        finally:
            stop.set()
            trickle.join()
    finally:
        for client in clients:
            client.close()


def _trickle(clients: list[socket.socket], kind: str, stop: threading.Event) -> None:
    while kind != "idle" and not stop.wait(1.0):
        for client in clients:
            try:
                if kind == "readers":
                    client.recv(1)
                else:
                    client.send(b"x")
            except OSError:  # the server has cut it
                continue
