"""An open-loop load: requests are due at a fixed rate whether or not earlier ones were answered.

Latency counts from the moment a request was due, so that a server that answers late cannot slow the load down
("coordinated omission"). One thread, asyncio; connections are kept and reused, as many as it takes. The collector of
cycles is off meanwhile: among hundreds of thousands of answers it would hold the clients up for half a second.
"""

import asyncio
import gc
import random
import time
from dataclasses import dataclass, field

PATIENCE_S = 10.0  # then a client of an open loop has gone


@dataclass(frozen=True)
class Stream:
    """Requests of one kind: `rate` a second to `path`, from `address` on this machine. host: the Host header."""

    path: str
    rate: float
    address: str = "127.0.0.1"
    host: str = "a"


@dataclass
class Answers:
    """status and latency in seconds of each request by the time it was due; status 0: no answer in time.

    late_s: the longest that the generator itself was behind its time.
    """

    seconds: float
    found: list[tuple[float, int, float]] = field(default_factory=list)
    late_s: float = 0.0

    def within(self, limit_s: float, since_s: float = 0.0) -> float:
        """Good answers a second: of 2xx, within the limit."""
        good = [
            1 for due, status, latency in self.found if due >= since_s and 200 <= status < 300 and latency <= limit_s
        ]
        return len(good) / (self.seconds - since_s)

    def latency_s(self, share: float, since_s: float = 0.0, below: int = 300) -> float:
        """The percentile of the answers with a status from 200 to `below`; infinity where there are none."""
        found = sorted(latency for due, status, latency in self.found if due >= since_s and 200 <= status < below)
        return found[min(len(found) - 1, int(len(found) * share))] if found else float("inf")

    def share(self, *statuses: int) -> float:
        """Which part of all requests was answered with one of these."""
        return sum(status in statuses for _, status, _ in self.found) / max(1, len(self.found))


class _Client(asyncio.Protocol):
    """One kept connection, with one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or self.answered is None or self.answered.done():
            return
        if _is_whole(head.lower(), body):
            self.received = b""
            self.answered.set_result(int(head[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(0)


def _is_whole(head: bytes, body: bytes) -> bool:
    """head: in lower case."""
    if b"\r\ntransfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return len(body) >= length


class Generator:
    """Asks for one stream's page, on connections that it keeps; `close` when it is done."""

    def __init__(self, port: int, stream: Stream, patience_s: float = PATIENCE_S) -> None:
        self._port = port
        self._stream = stream
        self._patience_s = patience_s
        self._idle: list[_Client] = []

    async def ask(self, answers: Answers, start: float, due: float) -> None:
        """Note the answer to a request that is due so long after the start."""
        client = None
        try:
            async with asyncio.timeout(self._patience_s):
                client = await self._client()
                client.answered = asyncio.get_running_loop().create_future()
                request = f"GET {self._stream.path} HTTP/1.1\r\nHost: {self._stream.host}\r\n\r\n".encode()
                client.transport.write(request)  # type: ignore[union-attr]
                status = await client.answered
        except (OSError, TimeoutError):
            status = 0
        answers.found.append((due, status, time.monotonic() - start - due))
        if client is not None and client.transport is not None:
            if status:
                self._idle.append(client)
            else:
                client.transport.abort()

    async def _client(self) -> _Client:
        while self._idle:
            client = self._idle.pop()
            if client.transport is not None and not client.transport.is_closing():
                return client
        loop = asyncio.get_running_loop()
        address = (self._stream.address, 0)
        _, client = await loop.create_connection(_Client, "127.0.0.1", self._port, local_addr=address)
        return client

    def close(self) -> None:
        for client in self._idle:
            if client.transport is not None:
                client.transport.abort()


async def _offer(port: int, stream: Stream, seconds: float) -> Answers:
    answers, generator = Answers(seconds), Generator(port, stream)
    chance = random.Random(stream.address + stream.path)  # noqa: S311 - no secret
    asking: set[asyncio.Task[None]] = set()
    start, due = time.monotonic(), 0.0
    while due < seconds:
        await asyncio.sleep(max(0.0, start + due - time.monotonic()))
        answers.late_s = max(answers.late_s, time.monotonic() - start - due)
        task = asyncio.create_task(generator.ask(answers, start, due))
        asking.add(task)
        task.add_done_callback(asking.discard)
        due += chance.expovariate(stream.rate)
    await asyncio.gather(*asking)
    generator.close()
    return answers


def offer(port: int, seconds: float, *streams: Stream) -> list[Answers]:
    """Offer the streams at once, each at its rate; the answers to each."""

    async def all_of_them() -> list[Answers]:
        return await asyncio.gather(*(_offer(port, stream, seconds) for stream in streams))

    gc.disable()
    try:
        return asyncio.run(all_of_them())
    finally:
        gc.enable()
