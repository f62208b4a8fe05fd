"""How slow a client may be while a thread writes its response, by a clock that the test turns."""

import socket
from types import SimpleNamespace

import pytest

from fullhouse.worker import channel as module
from fullhouse.worker.channel import Channel, ClientGoneError
from fullhouse.worker.http.request import Request
from fullhouse.worker.options import Options

OPTIONS = Options(transfer_grace_s=20.0, minimum_rate_bytes_s=500)


class SlowChannel(Channel):
    """To a client that takes each piece after `delay_s`."""

    __slots__ = ("clock", "delay_s", "ready")

    def _send_nowait(self, unsent) -> bool:
        ready, self.ready = self.ready or not self.delay_s, False
        return ready

    def _wait_writable(self, timeout_s: float) -> None:
        if timeout_s < self.delay_s:
            raise ClientGoneError("it reads too slowly")
        self.clock.now += self.delay_s
        self.ready = True


@pytest.fixture
def slow(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    here, there = socket.socketpair()
    with here, there:
        channel = SlowChannel(here, SimpleNamespace(peer=("", 0)), ("", 0), OPTIONS)
        channel.clock, channel.ready, channel.delay_s = clock, False, 0.0
        channel.begin_request(Request("GET", "/", (1, 1), "http", ("", 0)))
        yield channel


def test_the_minimum_rate_counts_over_the_whole_response(slow):
    slow.delay_s = 15.0  # each piece in time, and all of them far too slowly
    slow.write(bytes(100))
    with pytest.raises(ClientGoneError):
        slow.write(bytes(100))


def test_a_client_at_the_minimum_rate_gets_all(slow):
    slow.delay_s = 15.0
    for _ in range(100):
        slow.write(bytes(10_000))


def test_the_pauses_of_the_application_are_not_the_clients(slow):
    for _ in range(100):
        slow.clock.now += 60.0
        slow.write(b"event")
    slow.delay_s = 1.0
    slow.write(b"event")


def test_each_response_begins_anew(slow):
    slow.delay_s = 15.0
    for _ in range(3):
        slow.write(bytes(100))
        slow.begin_request(Request("GET", "/", (1, 1), "http", ("", 0)))
