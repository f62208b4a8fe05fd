"""Rounds of the loop, with real sockets and without threads."""

import errno
import os
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from fullhouse.telemetry.tally import Tally
from fullhouse.worker.channels import Channels
from fullhouse.worker.http import body
from fullhouse.worker.http.rules import http_rules
from fullhouse.worker.loop import Loop
from fullhouse.worker.options import Options
from fullhouse.worker.poller import new_poller
from fullhouse.worker.probes import Probes
from fullhouse.worker.siblings import Siblings
from fullhouse.worker.triage import Triage
from fullhouse.worker.unsent import Unsent

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Sink:
    """Takes requests, and runs none."""

    waiting = 0

    def __init__(self) -> None:
        self.taken = []

    def put(self, batch) -> None:
        self.taken += [entry.job for entry in batch]

    def wake_for_waiting(self) -> None:
        pass

    def in_flight(self) -> int:
        return len(self.taken)

    def tick(self) -> None:
        pass

    end_round = tick


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


class FullPoller(Poller):
    """Takes so many descriptors more, then none, as the kernel does at fs.epoll.max_user_watches."""

    room = 0

    def register(self, fd: int, events: int) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        self._poller.register(fd, events)


class Site:
    """A loop, and its clients."""

    def __init__(self, opened: ExitStack, **options: int) -> None:
        self._opened = opened
        self.memory = bytearray(Siblings.BYTES)
        self._listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.setblocking(False)
        self.options = replace(Options(body_memory_bytes=100, keepalive_s=30.0, stop_linger_s=2.0), **options)
        self.sink = Sink()
        self.messages: list[str] = []
        wakes = os.pipe()
        for fd in wakes:
            opened.callback(os.close, fd)
        note = lambda text, *values: self.messages.append(text % values)  # noqa: E731
        self.logged: list[tuple[str | None, int]] = []
        access_log = SimpleNamespace(
            write_answer=lambda channel, request, status, size: self.logged.append(
                (request and request.path, int(status))
            ),
        )
        log = SimpleNamespace(debug=note, warning=note, error=note, exception=note)
        poller = new_poller()
        self.channels = Channels(
            poller=poller,
            threads=1,
            rules=http_rules(Config(), self.options.body_memory_bytes, self.options.max_body_bytes),
            options=self.options,
            probes=Probes(None, None, bool),
            triage=Triage(),
            tally=Tally(),
            log=log,
            access_log=access_log,
        )
        self.loop = Loop(
            poller=poller,
            listeners=[self._listener],
            wake_fd=wakes[0],
            channels=self.channels,
            max_connections=self.options.worker_connections,
            owner=self.sink,
            log=log,
            siblings=Siblings(self.memory, 1),
        )
        opened.callback(self.channels.close)

    def connect(self, sends: bytes = b"") -> socket.socket:
        client = self._opened.enter_context(socket.create_connection(self._listener.getsockname(), timeout=20))
        client.sendall(sends)
        return client

    def take(self):
        """Rounds until there is a request to run: its channel, and itself."""
        while not self.sink.taken:
            self.loop.run_once()
        return self.sink.taken.pop(0)

    def answer(self, channel) -> None:
        channel.small_response = ANSWER
        self.channels.take_back(channel, answered=True)
        self.loop.run_once()


@pytest.fixture
def site():
    with ExitStack() as opened:
        yield Site(opened)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def test_a_round_that_has_requests_to_hand_over_waits_for_nothing(site):
    """A pipelined request is read while its predecessor is sent, before the poller is asked."""
    poller = site.loop._poller = Poller(site.loop._poller)
    client = site.connect(get("/1") + get("/2"))
    channel, first = site.take()
    assert first.path == "/1"
    site.answer(channel)
    assert poller.timeouts[-1] == 0
    assert [request.path for _, request in site.sink.taken] == ["/2"]
    assert client.recv(1000) == ANSWER


def test_a_thread_sends_what_it_has_made_and_the_loop_is_only_owed_what_it_alone_can_do(site):
    client = site.connect(get("/1"))
    channel, _ = site.take()
    channel.small_response = ANSWER
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert client.recv(1000) == ANSWER
    assert not site.channels.is_owed, "its next request will be seen"
    client.sendall(get("/2") + get("/3"))
    channel, second = site.take()
    assert second.path == "/2"
    channel.small_response = ANSWER
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert site.channels.is_owed, "the third one is there already"
    assert site.take()[1].path == "/3"


def test_a_request_that_comes_before_its_channel_is_returned_is_not_lost(site):
    """The loop stops watching a client that sends while its request runs: whoever returns it wakes the loop."""
    client = site.connect(get("/1"))
    channel, _ = site.take()
    client.sendall(get("/2"))
    while channel.watched:
        site.loop.run_once()
    channel.small_response = ANSWER
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert site.channels.is_owed
    assert site.take()[1].path == "/2"


def test_a_request_that_comes_while_the_response_before_it_is_sent_is_read_when_the_channel_is_back(site):
    client = site.connect(get("/1"))
    channel, _ = site.take()
    channel.small_response = ANSWER
    channel.send_small()
    client.sendall(get("/2"))
    site.loop.run_once()
    assert channel.watched, "it comes back next, and costs no two system calls"
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert site.take()[1].path == "/2"


def test_a_channel_that_needs_the_loop_is_not_forgotten_for_one_that_is_returned_at_the_same_moment(site):
    needy = SimpleNamespace(small_response=b"", needs_loop=True)

    class Idle:
        small_response = b""

        @property
        def needs_loop(self) -> bool:
            """Asked by its thread, while another thread returns the other channel."""
            site.channels.take_back(needy, answered=False)
            return False

    site.channels.take_back(Idle(), answered=False)
    assert site.channels.is_owed
    site.channels._returned.clear()


def test_the_rest_of_a_response_and_an_error_are_left_to_the_loop(site):
    client = site.connect(get("/1"))
    channel, _ = site.take()
    channel.small_response = 20_000_000 * b"x"
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert site.channels.is_owed
    received = 0
    while received < 20_000_000:
        site.loop.run_once(wait=False)
        received += len(client.recv(1 << 20))
    client.sendall(get("/2"))
    channel, _ = site.take()
    channel.sock.close()
    channel.small_response = ANSWER
    site.channels.take_back(channel, answered=True)
    site.channels.send_made()
    assert site.channels.is_owed
    site.loop.run_once(wait=False)
    assert site.loop.connections == 0


def test_the_kernel_tells_when_a_request_came_whose_connection_waited_to_be_accepted(site):
    site.connect(get("/1"))
    time.sleep(0.1)
    waited_from_s = time.monotonic()
    _, request = site.take()
    assert request.received_s < waited_from_s - 0.05


def test_what_was_in_the_kernel_before_the_loop_looked_came_about_half_way_since_its_last_look(site):
    site.loop.run_once(wait=False)
    site.connect(get("/1"))
    site.loop._polled_at = time.monotonic() - 10
    began_s = time.monotonic()
    site.loop.run_once(wait=False)  # accepts
    site.loop._polled_at = time.monotonic() - 10
    site.loop.run_once(wait=False)
    ((_, request),) = site.sink.taken
    assert began_s - 6 < request.received_s < began_s - 4


def test_a_round_that_listens_again_waits_for_nothing(site):
    """So that only what nobody else wanted is accepted in it, and what comes later may be another's."""
    poller = site.loop._poller = Poller(site.loop._poller)
    site.connect()
    while not site.loop.connections:
        site.loop.run_once()
    Siblings(site.memory, 2).publish_load(0, time.monotonic() + 3600)
    site.connect()
    left = 0
    while site.loop.connections == 1:
        site.loop.run_once()
        left += site.loop._acceptor.resume_at > 0
    assert left > 0
    assert poller.timeouts[-1] == 0


def test_what_goes_wrong_with_one_client_costs_only_its_connection(site, monkeypatch):
    read = Channels._read

    def fail(loop, channel) -> None:
        if channel.sock.getpeername() == client.getsockname():
            raise RuntimeError("a defect")
        read(loop, channel)

    monkeypatch.setattr(Channels, "_read", fail)
    client = site.connect(get("/1"))
    site.connect(get("/2"))
    while not site.messages:
        site.loop.run_once()
    with suppress(ConnectionResetError):
        assert client.recv(100) == b""
    assert site.take()[1].path == "/2"
    assert site.messages == ["Closing the connection of ip=127.0.0.1"]


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n"], ids=["whole", "chunked"]
)
def test_a_body_that_there_is_no_room_for_is_refused(site, monkeypatch, rest):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(body.tempfile, "TemporaryFile", fail)
    bystander = site.connect()
    client = site.connect(b"POST / HTTP/1.1\r\nHost: a\r\n" + rest + 1000 * b"x")
    bystander.sendall(get("/"))
    site.take()
    while not site.messages:
        site.loop.run_once()
    assert client.recv(1000).startswith(b"HTTP/1.1 507 ")
    assert site.messages == ["Cannot keep the body of a request: [Errno 28] No space left on device"]


def test_an_application_that_closes_its_socket_harms_no_other_client(site):
    site.connect(get("/1"))
    channel, _ = site.take()
    other = site.connect(get("/2"))
    channel.sock.close()
    other_channel, _ = site.take()
    assert other_channel.fd == channel.fd, "the system gives the number to the next"
    site.answer(channel)
    site.answer(other_channel)
    assert other.recv(1000) == ANSWER
    assert site.loop.connections == 1


def test_a_request_given_up_when_it_has_just_been_answered_does_not_answer_the_next(site):
    client = site.connect(get("/1") + get("/2"))
    channel, first = site.take()
    site.answer(channel)
    _, second = site.take()
    site.channels.give_up(channel, first, b"late")
    site.answer(channel)
    site.channels.give_up(channel, second, b"late")
    site.loop.run_once()
    assert client.recv(1000) == 2 * ANSWER


@pytest.mark.parametrize("stops_first", [True, False])
def test_a_connection_is_not_kept_for_long_while_stopping(site, stops_first):
    site.connect(get("/"))
    channel, _ = site.take()
    if stops_first:
        site.loop.stop()
    site.answer(channel)
    if not stops_first:
        site.loop.stop()
    assert channel.deadline <= site.channels.now + site.options.stop_linger_s + 1


def test_a_poller_that_is_full_costs_connections_and_not_the_worker(site):
    poller = site.loop._poller = FullPoller(site.loop._poller)
    site.loop._acceptor._poller = site.channels._poller = poller
    client = site.connect(get("/1"))
    while not site.messages:  # it cannot watch the listener
        site.loop.run_once()
    assert "Cannot accept a connection" in site.messages.pop()
    poller.room = 1
    while not site.messages:  # it cannot watch the client
        site.loop.run_once()
    assert "No space left on device" in site.messages.pop()
    with suppress(ConnectionResetError):
        assert client.recv(100) == b""
    poller.room = 2
    site.connect(get("/2"))
    assert site.take()[1].path == "/2"
    assert site.loop.connections == 1


def test_who_closes_its_side_with_its_request_gets_all_its_answers(site):
    """Bytes and their end in one event, as `nc -N` sends them, and proxies that speak TCP."""
    client = site.connect()
    while not site.loop.connections:
        site.loop.run_once()
    client.sendall(get("/1") + get("/2"))
    client.shutdown(socket.SHUT_WR)
    for path in ("/1", "/2"):
        channel, request = site.take()
        assert (request.path, channel.gone) == (path, False)
        site.answer(channel)
    assert client.recv(1000) == 2 * ANSWER


def test_who_closes_its_side_at_once_still_gets_its_answer_and_who_does_later_does_not(site):
    client = site.connect(get("/"))
    client.shutdown(socket.SHUT_WR)
    channel, _ = site.take()
    while channel.watched:
        site.loop.run_once()
    assert not channel.gone
    client = site.connect(get("/"))
    channel, _ = site.take()
    channel.began_s -= 1
    client.close()
    while channel.watched:
        site.loop.run_once()
    assert channel.gone


BUDGET = 100_000  # bytes, for ten connections: half of it is common, and each has 5,000 of the other half


@pytest.fixture
def tight():
    with ExitStack() as opened:
        yield Site(opened, transfer_memory_bytes=BUDGET, worker_connections=10, body_memory_bytes=1 << 20)


def rounds(site, until) -> None:
    """Rounds until it holds."""
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        site.loop.run_once()


def put(length: int, sent: int) -> bytes:
    return b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length + b"x" * sent


def test_bodies_beyond_the_memory_for_them_go_to_files(tight):
    clients = [tight.connect(put(40_000, 30_000)) for _ in range(9)]
    channels = tight.channels._open.values()
    rounds(tight, lambda: [channel.http.body_bytes for channel in channels] == [30_000] * 9)
    assert 0 < tight.channels._memory.used_bytes <= BUDGET
    assert any(channel.kept_bytes for channel in channels), "who comes first is kept in memory"
    for client in clients:
        client.sendall(b"y" * 10_000)
    for _ in clients:
        channel, request = tight.take()
        with request.body as body:
            assert body.read() == b"x" * 30_000 + b"y" * 10_000
        tight.answer(channel)
    assert tight.channels._memory.used_bytes == 0


def test_heads_that_take_all_memory_are_refused_and_short_ones_are_served(tight):
    begin = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    long = [tight.connect(begin + b"x" * 8000) for _ in range(9)]
    rounds(tight, lambda: len(tight.logged) == 3)  # six are over the half that is common
    assert tight.logged == [(None, 503)] * 3
    assert tight.channels._memory.used_bytes <= BUDGET
    tight.connect(get("/short"))
    assert tight.take()[1].path == "/short"
    for client in long:
        client.close()
    rounds(tight, lambda: len(tight.channels) == 1)
    assert tight.channels._memory.used_bytes == 0


def test_what_was_sent_ahead_is_dropped_where_memory_is_short(tight):
    """Its client learns by the end of the connection that it must ask again (RFC 9112 section 9.3.2)."""
    for _ in range(7):
        tight.connect(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8000)
    rounds(tight, lambda: len(tight.logged) == 1)
    tight.connect(get("/1") + get("/2" + "2" * 3000) + get("/3" + "3" * 3000))
    channel, request = tight.take()
    assert (request.path, request.must_close) == ("/1", True)
    assert not channel.http.has_unparsed


def test_responses_beyond_the_memory_for_them_go_to_files(tight):
    clients = [tight.connect(get("/")) for _ in range(5)]
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000
    for _ in clients:
        channel, _ = tight.take()
        channel.unsent = Unsent([whole])
        tight.channels.take_back(channel, answered=True)
    rounds(tight, lambda: all(channel.unsent.sent for channel in tight.channels._open.values() if channel.unsent))
    assert tight.channels._memory.used_bytes <= BUDGET
    received = bytearray()
    clients[0].settimeout(0)
    while len(received) < len(whole):
        tight.loop.run_once(wait=False)
        with suppress(BlockingIOError):
            received += clients[0].recv(1 << 20)
    assert received == whole
