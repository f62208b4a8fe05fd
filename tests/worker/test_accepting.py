"""Who accepts a connection: workers that share a listening socket, without the loop around them."""

import errno
import socket
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from fullhouse.worker.accepting import Acceptor
from fullhouse.worker.siblings import Siblings


class Poller:
    """Remembers what it is asked to watch."""

    def __init__(self) -> None:
        self.watched: set[int] = set()

    def register(self, fd: int, _events: int) -> None:
        self.watched.add(fd)

    def unregister(self, fd: int) -> None:
        self.watched.remove(fd)


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(opened):
    sock = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    sock.setblocking(False)
    return sock


class Site:
    """A listening socket whose clients `knock`, and a worker, or one of several, that accepts."""

    def __init__(self, opened, listener) -> None:
        self._opened, self._listener = opened, listener
        self.memory = bytearray(Siblings.BYTES)
        self.log: list[str] = []

    def acceptor(self, row: int | None = None) -> Acceptor:
        siblings = None if row is None else Siblings(self.memory, row)
        log = SimpleNamespace(warning=lambda text, *values: self.log.append(text % values))
        return Acceptor([self._listener], Poller(), log, siblings)

    def knock(self, times: int) -> None:
        for _ in range(times):
            self._opened.enter_context(socket.create_connection(self._listener.getsockname()))

    def accept(self, acceptor: Acceptor, now: float, connections: int = 0, room: int = 1000) -> int:
        accepted = acceptor.accept(self._listener.fileno(), now, connections, room)
        for sock, peer, server in accepted:
            assert (peer, server) == (sock.getpeername(), sock.getsockname())
            assert not sock.getblocking()
            self._opened.enter_context(sock)
        return len(accepted)


@pytest.fixture
def site(opened, listener):
    return Site(opened, listener)


def test_alone_it_takes_all_that_wait_and_have_room(site):
    alone = site.acceptor()
    site.knock(10)
    assert site.accept(alone, 100.0, room=4) == 4
    assert site.accept(alone, 100.0) == 6
    assert site.accept(alone, 100.0) == 0


def test_with_siblings_it_takes_a_part_of_what_it_has(site):
    one = site.acceptor(1)
    site.knock(10)
    assert site.accept(one, 100.0, connections=0) == 1
    assert site.accept(one, 100.0, connections=16) == 3


def test_who_has_more_to_do_leaves_a_connection_to_others_for_a_moment(site):
    one, two = site.acceptor(1), site.acceptor(2)
    one.publish(lambda: 5, 100.0)
    two.publish(lambda: 4, 100.0)
    site.knock(2)
    assert site.accept(one, 100.0) == 0
    assert site.accept(two, 100.0) == 1
    one.watch(100.0005, has_room=True)
    assert not one._poller.watched
    one.watch(100.001, has_room=True)
    assert one._poller.watched
    assert site.accept(one, 100.009) == 1, "the other did not take it, however late the poller came back"
    one.publish(lambda: 5, 100.009)
    site.knock(1)
    assert site.accept(one, 100.009) == 0, "but it may take the next"


def test_each_connection_is_left_anew(site):
    one, two = site.acceptor(1), site.acceptor(2)
    for now in (100.0, 101.0, 102.0):
        one.publish(lambda: 5, now)
        two.publish(lambda: 4, now)
        one.watch(now, has_room=True)
        site.knock(1)
        assert site.accept(one, now) == 0
        assert site.accept(two, now) == 1
        one.watch(now + 0.001, has_room=True)  # the round that begins again ends without another


def test_who_has_as_much_as_others_accepts(site):
    one, two = site.acceptor(1), site.acceptor(2)
    one.publish(lambda: 4, 100.0)
    two.publish(lambda: 4, 100.0)
    site.knock(2)
    assert site.accept(one, 100.0) == site.accept(two, 100.0) == 1


def test_two_workers_in_one_row_know_their_own_load(site):
    heavy, light, third = site.acceptor(1), site.acceptor(65), site.acceptor(2)
    heavy.publish(lambda: 500, 100.0)
    light.publish(lambda: 2, 100.0)
    third.publish(lambda: 400, 100.0)
    site.knock(2)
    assert site.accept(heavy, 100.0) == 0
    assert site.accept(light, 100.0) == 1


def test_a_pause_for_want_of_descriptors_outlasts_a_moment(site, monkeypatch):
    def accept(_sock):
        raise OSError(errno.EMFILE, "Too many open files")

    one = site.acceptor(1)
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert site.accept(one, 100.0) == 0
    Siblings(site.memory, 2).publish_load(0, 100.0)
    one.publish(lambda: 5, 100.0)
    assert site.accept(one, 100.0) == 0
    assert one.resume_at == pytest.approx(100.1)


def test_a_worker_that_has_ended_or_is_stuck_does_not_count(site):
    one, ended = site.acceptor(1), site.acceptor(2)
    ended.publish(lambda: 0, 100.0)
    one.publish(lambda: 18, 104.0)
    site.knock(1)
    assert site.accept(one, 104.0) == 1


def test_without_room_nobody_listens(site):
    alone = site.acceptor()
    alone.watch(100.0, has_room=True)
    alone.watch(100.0, has_room=False)
    assert not alone._poller.watched


def test_without_descriptors_it_tries_again_later(site, monkeypatch):
    def accept(_sock):
        raise OSError(errno.EMFILE, "Too many open files")

    alone = site.acceptor()
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert site.accept(alone, 100.0) == 0
    assert alone.resume_at == pytest.approx(100.1)
    assert site.log == ["Cannot accept a connection: [Errno 24] Too many open files; trying again in 0.1 s."]
