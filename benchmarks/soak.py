"""Ten minutes of clients at their worst: `python -m benchmarks.soak [--minutes 10]`.

Slow, aborting, pipelining, huge and broken clients, at random, against one worker. At the end, when all of
them have gone, the worker must have as many descriptors as before, no more threads than it may have, and at
most 5 % more memory than after the first fifth of the run. Exit code 0 if so.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GET = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Filler: %b\r\n\r\n"
APPLICATION = """
import tempfile
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("meant to fail")
    if path == "/stream":
        start_response("200 OK", [])
        return (b"x" * 10_000 for _ in range(20))
    if path == "/file":
        file = tempfile.TemporaryFile()
        file.write(b"x" * 300_000)
        file.seek(0)
        start_response("200 OK", [("Content-Length", "300000")])
        return environ["wsgi.file_wrapper"](file)
    size = 2_000_000 if path == "/large" else len(body) or 10
    start_response("200 OK", [("Content-Length", str(size))])
    return [b"x" * size]
"""


def keep_alive(client: socket.socket, source: random.Random) -> None:
    for number in range(source.randint(1, 20)):
        client.sendall(GET % (number, b"y" * source.randint(1, 2000)))
        client.recv(65536)


def pipeline(client: socket.socket, source: random.Random) -> None:
    client.sendall(b"".join(GET % (number, b"z") for number in range(source.randint(2, 50))))
    client.recv(65536)


def upload(client: socket.socket, source: random.Random) -> None:
    size = source.choice([100, 100_000, 3_000_000])
    client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // 10):
        client.sendall(b"x" * 10 if size < 1000 else b"x" * (size // 20))
        if source.random() < 0.1:
            break


def download(client: socket.socket, source: random.Random) -> None:
    client.sendall(source.choice([b"GET /large", b"GET /file", b"GET /stream", b"GET /raise"]) + b" HTTP/1.0\r\n\r\n")
    for _ in range(source.randint(0, 10)):
        client.recv(source.choice([10, 100_000]))


def drip(client: socket.socket, source: random.Random) -> None:
    for byte in (GET % (1, b"x"))[: source.randint(1, 60)]:
        client.sendall(bytes([byte]))
        time.sleep(source.random() / 50)


def broken(client: socket.socket, source: random.Random) -> None:
    raw = bytearray(GET % (1, b"x") + b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    for _ in range(source.randint(1, 4)):
        raw[source.randrange(len(raw))] = source.randrange(256)
    client.sendall(raw)
    client.recv(65536)


def silent(client: socket.socket, source: random.Random) -> None:
    time.sleep(source.random())


CLIENTS: list[Callable[[socket.socket, random.Random], None]] = [
    *(keep_alive, pipeline, upload, download, drip, broken, silent)
]


THREADS = 8


@dataclass(frozen=True)
class State:
    """What a process holds. Memory in bytes."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> "State":
        process = Path(f"/proc/{pid}")
        pages = int((process / "statm").read_text().split()[1])
        return cls(
            descriptors=len(list((process / "fd").iterdir())),
            threads=len(list((process / "task").iterdir())),
            memory=pages * os.sysconf("SC_PAGE_SIZE"),
        )


def one_client(address, source: random.Random, met: Counter) -> None:
    behave = source.choice(CLIENTS)
    met[behave.__name__] += 1
    try:
        with socket.create_connection(address, timeout=5) as client:
            if source.random() < 0.2:  # an abort instead of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            behave(client, source)
    except OSError:
        met["ended by the server"] += 1


def settled(address, worker: int) -> State:
    """The worker's state once its connections are gone."""
    wait_s = 6  # keep-alive and lingering take 2 s each
    time.sleep(wait_s)
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 200"), "the server does not answer any more"
    time.sleep(1)
    return State.of(worker)


def run_clients(address, until: float, seed: int, met: Counter) -> None:
    def run(source: random.Random) -> None:
        while time.monotonic() < until:
            one_client(address, source, met)

    threads = [threading.Thread(target=run, args=(random.Random(seed + n),)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def soak(seconds: float, seed: int, growth_percent: float) -> bool:
    """Run it; whether nothing leaked."""
    met: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        Path(folder, "soak_app.py").write_text(APPLICATION)
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{folder}"}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-k", "fullhouse.worker.Worker", "--threads", str(THREADS)),
                *("-b", f"fd://{listener.fileno()}", "--log-level", "critical", "--no-control-socket"),
                "soak_app:app",
            ],
            pass_fds=[listener.fileno()],
            env=environment,
        )
        address = listener.getsockname()
        try:
            start = time.monotonic()
            run_clients(address, start + seconds / 5, seed, met)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            worker = int(children[0])
            before = settled(address, worker)
            run_clients(address, start + seconds, seed + 1000, met)
            after = settled(address, worker)
        finally:
            process.terminate()
            process.wait(60)
    print(f"seed {seed}, {sum(met.values())} clients: {dict(met)}\nbefore {before}\nafter  {after}")
    same = before.descriptors == after.descriptors and after.threads <= THREADS + 1  # and the loop's
    return same and after.memory <= before.memory * (1 + growth_percent / 100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--growth", type=float, default=5, help="of memory, in percent, that is no leak")
    settings = parser.parse_args()
    sys.exit(0 if soak(settings.minutes * 60, settings.seed, settings.growth) else 1)


if __name__ == "__main__":
    main()
