"""One round of the loop, with real sockets and without threads."""

import os
import socket
from contextlib import closing
from types import SimpleNamespace

from gunicorn.config import Config

from fullhouse.telemetry.tally import Tally
from fullhouse.worker.loop import Loop
from fullhouse.worker.options import Options, http_rules
from fullhouse.worker.probes import Probes
from fullhouse.worker.triage import Triage

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink:
    """Takes requests, and runs none."""

    threads = 1
    waiting = 0

    def __init__(self) -> None:
        self.taken = []

    def put(self, batch) -> None:
        self.taken += [entry.job for entry in batch]

    def wake_for_waiting(self) -> None:
        pass

    def in_flight(self) -> int:
        return len(self.taken)


class Poller:
    """The real one, which remembers how long it was to wait."""

    def __init__(self, poller) -> None:
        self._poller = poller
        self.timeouts: list[float] = []

    def __getattr__(self, name: str):
        return getattr(self._poller, name)

    def poll(self, timeout_s: float):
        self.timeouts.append(timeout_s)
        return self._poller.poll(timeout_s)


def test_a_round_that_has_requests_to_hand_over_waits_for_nothing():
    """A pipelined request is read while its predecessor is sent, before the poller is asked."""
    options, sink, wakes = Options(), Sink(), os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        log = SimpleNamespace(debug=lambda *_: None)
        loop = Loop(
            [listener], wakes[0], sink, http_rules(Config(), options), options, Probes(None, None, bool), Triage(),
            Tally(), log, lambda: None, lambda: None, None,
        )  # fmt: skip
        loop._poller = Poller(loop._poller)
        with closing(socket.create_connection(listener.getsockname())) as client:
            client.sendall(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
            while not sink.taken:
                loop.run_once()
            channel, first = sink.taken.pop()
            assert first.path == "/1"
            channel.small_response = ANSWER
            loop.take_back(channel)
            loop.run_once()
            assert loop._poller.timeouts[-1] == 0
            assert [request.path for _, request in sink.taken] == ["/2"]
            assert client.recv(1000) == ANSWER
            loop.close()
    for fd in wakes:
        os.close(fd)
