"""The pure parts: accept delay, pace, what is left to send, the threads' queue."""

import os
import socket
import tempfile
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
from serving import wait_until

from fullhouse.telemetry.times import Times, own
from fullhouse.worker.admission.queue import Admission, AdmissionRules, Waiting
from fullhouse.worker.channel import Channel, ClientGoneError
from fullhouse.worker.http.request import Request
from fullhouse.worker.options import Options
from fullhouse.worker.pace import Pace
from fullhouse.worker.threads import Threads, ThreadState
from fullhouse.worker.timer import Timer
from fullhouse.worker.unsent import FileRange, Unsent
from fullhouse.worker.wsgi.response import Response


def test_a_pace_is_kept_in_every_window():
    pace = Pace(100.0, 10.0, 50)
    assert pace.deadline == 110.0
    assert pace.moved(105.0, 499) == 110.0
    assert pace.moved(106.0, 500) == 116.0
    assert pace.moved(107.0, 1_000_000) == 117.0  # a burst buys one window, not hours
    assert pace.moved(116.9, 1_000_100) == 117.0


class NarrowSocket:
    """Takes `width` bytes at a time, and nothing every other time."""

    def __init__(self, width: int) -> None:
        self.received = b""
        self.flags = 0
        self._width = width
        self._full = False

    def fileno(self) -> int:
        raise AssertionError("only the kernel may use the descriptor")

    def sendmsg(self, pieces: list[memoryview], ancillary: tuple[()], flags: int) -> int:
        self.flags |= flags
        return self.send(b"".join(pieces))

    def send(self, data: bytes | memoryview) -> int:
        self._full = not self._full
        if self._full:
            raise BlockingIOError
        self.received += bytes(data[: self._width])
        return min(len(data), self._width)


def drain(unsent: Unsent, sock: NarrowSocket) -> None:
    while not unsent.send_nowait(sock):
        pass


@pytest.mark.parametrize("width", [1, 7, 1000])
@pytest.mark.parametrize("memory_bytes", [0, 10, 1000])
def test_what_is_unsent_arrives_whole(width, memory_bytes):
    sock = NarrowSocket(width)
    unsent = Unsent([b"head", memoryview(b"0123456789")])
    unsent.spool(memory_bytes, sendfile=False)
    drain(unsent, sock)
    assert sock.received == b"head0123456789"
    assert unsent.sent == 14


def test_a_part_of_a_file_follows_the_head():
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        sock = NarrowSocket(3)
        drain(Unsent([b"head"], FileRange(os.dup(file.fileno()), 2, 6, sendfile=False)), sock)
    assert sock.received == b"head234567"


@pytest.mark.parametrize("count", [0, 6])
def test_the_kernel_waits_for_more_than_the_head_only_if_more_follows(count):
    """Else it keeps the head back for 200 ms: as of an empty file, or in the answer to HEAD."""
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        sock = NarrowSocket(1000)
        drain(Unsent([b"head"], FileRange(os.dup(file.fileno()), 0, count, sendfile=False)), sock)
    assert sock.flags == (getattr(socket, "MSG_MORE", 0) if count else 0)


@pytest.mark.parametrize("sendfile", [False, True])
def test_a_long_file_is_sent_in_parts_to_whoever_takes_all_of_it(sendfile, monkeypatch):
    sizes: list[int] = []
    sock = SimpleNamespace(fileno=lambda: -1, send=lambda data: sizes.append(len(data)) or len(data))
    monkeypatch.setattr(os, "sendfile", lambda out, fd, offset, count: sizes.append(count) or count)
    with tempfile.TemporaryFile() as file:
        file.truncate(100 << 20)
        unsent, parts = Unsent([], FileRange(os.dup(file.fileno()), 0, 100 << 20, sendfile=sendfile)), []
        finished = False
        while not finished:
            finished = unsent.send_nowait(sock)
            parts.append(sum(sizes))
            sizes.clear()
    assert (sum(parts), max(parts)) == (100 << 20, 4 << 20)


def test_a_file_that_became_shorter_cuts_the_response():
    with tempfile.TemporaryFile() as file:
        unsent = Unsent([], FileRange(os.dup(file.fileno()), 0, 6, sendfile=False))
        with pytest.raises(OSError, match="6 bytes before"):
            drain(unsent, NarrowSocket(3))
        unsent.close()


@pytest.mark.parametrize("status", ["", "200 OK"], ids=["not started", "given up"])
def test_a_file_that_is_never_sent_is_closed(status):
    request = Request("GET", "/", (1, 1), "http", None)
    response = Response(request, SimpleNamespace(take_turn=lambda: False, send_whole=pytest.fail), bool)
    response.status = status
    with tempfile.TemporaryFile() as file:
        part = FileRange(os.dup(file.fileno()), 0, 0, sendfile=True)
    with pytest.raises((AssertionError, ClientGoneError)):
        response.send_file(part)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(part.fd)


def threads_for(count: int, handle, shed=None, send_made=list, **owner):
    """Threads whose loop is never lent, unless the test says otherwise."""
    admission = Admission(AdmissionRules())
    return Threads(
        threads=count,
        admission=admission,
        owner=SimpleNamespace(
            run_request=handle,
            shed=shed or never,
            send_made=send_made,
            **{
                "turn_loop": lambda wait: False,
                "is_loop_lent": bool,
                "is_loop_running": bool,
                "is_held_up": bool,
                "thread_ends": bool,
                **owner,
            },
        ),
        log=log,
    )


class Log:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def error(self, text: str, *values) -> None:
        self.messages.append(text % values)

    exception = error


log = Log()


def never(channel, request) -> None:
    raise AssertionError("nothing is shed")


def test_requests_of_clients_that_have_gone_do_not_run():
    ran, shed = [], []
    threads = threads_for(1, lambda *job: ran.append(job), lambda *job: shed.append(job))
    here, gone = SimpleNamespace(gone=False), SimpleNamespace(gone=True)
    threads.put([Waiting((channel, 1), time.monotonic()) for channel in (here, gone, here)])
    wait_until(lambda: len(ran) + len(shed) == 3, "all are dealt with")
    threads.stop(20)
    assert (ran, shed) == ([(here, 1), (here, 1)], [(gone, 1)])


def test_who_has_waited_for_too_long_is_told_so_while_all_threads_are_busy():
    arrived, gate, shed = threading.Semaphore(0), threading.Event(), []
    threads = threads_for(1, lambda *_: (arrived.release(), gate.wait(20)), lambda *job: shed.append(job))
    channel, now = SimpleNamespace(gone=False), time.monotonic()
    threads.put([Waiting((channel, "runs"), now)])
    assert arrived.acquire(timeout=20)
    threads.put([Waiting((channel, "too late"), now, deadline=now), Waiting((channel, "waits"), now)])
    while not shed:  # as the loop does, every time it comes to run
        threads.wake_for_waiting()
    assert (shed, threads.waiting) == ([(channel, "too late")], 1)
    gate.set()
    threads.stop(20)


def test_as_many_threads_run_as_the_system_allows(monkeypatch):
    ran, channel, now = [], SimpleNamespace(gone=False), time.monotonic()
    arrived, gate = threading.Semaphore(0), threading.Event()
    threads = threads_for(2, lambda *job: (arrived.release(), gate.wait(20), ran.append(job)))
    threads.put([Waiting((channel, 1), now)])
    assert arrived.acquire(timeout=20)

    def start(_thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    log.messages.clear()
    threads.put([Waiting((channel, 2), now), Waiting((channel, 3), now)])
    while not log.messages:
        threads.wake_for_waiting()
    assert log.messages[0] == "can't start new thread: 1 run, of the 2 there may be"
    gate.set()
    wait_until(lambda: len(ran) == 3, "the one thread runs all")
    threads.stop(20)


def test_a_thread_that_fails_is_replaced_and_loses_no_other_request():
    ran: list[int] = []

    def handle(channel, number: int) -> None:
        ran.append(number)
        if number in (1, 3):
            raise SystemExit("a defect")

    log.messages.clear()
    threads = threads_for(1, handle)
    channel, now = SimpleNamespace(gone=False), time.monotonic()
    threads.put([Waiting((channel, number), now) for number in (1, 2)])
    wait_until(lambda: ran == [1, 2] and not threads.is_awake, "both have run")
    threads.put([Waiting((channel, 3), now)])
    wait_until(lambda: not threads.states, "its thread has ended")
    threads.put([Waiting((channel, 4), now)])
    wait_until(lambda: ran == [1, 2, 3, 4] and threads.in_flight() == 0, "a new thread runs the next one")
    assert log.messages == 2 * ["A request thread failed; another takes its place"]
    threads.stop(20)


def test_threads_are_woken_for_what_waits_and_go_to_sleep_after_it():
    arrived, gate = threading.Semaphore(0), threading.Event()
    sent = []

    def handle(channel, request) -> None:
        arrived.release()
        gate.wait(20)

    threads = threads_for(3, handle, send_made=lambda: sent.append(1))
    channel, now = SimpleNamespace(gone=False), time.monotonic()
    threads.put([Waiting((channel, number), now) for number in range(5)])
    assert arrived.acquire(timeout=20)
    while threads.waiting > 2:  # as the loop does, every time it comes to run
        threads.wake_for_waiting()
    wait_until(lambda: threads.in_flight() == 5, "three run and two wait")
    assert (threads.waiting, threads.running) == (2, 3)
    gate.set()
    threads.stop(20)
    assert threads.in_flight() == 0
    assert len(sent) >= 3


@pytest.mark.parametrize("loop_runs", [False, True])
def test_a_request_that_waits_lets_another_thread_run_what_else_there_is(loop_runs):
    """The other requests, and the loop, where nobody is in it."""
    gate, ran, turned = threading.Event(), [], []
    channel, now = SimpleNamespace(gone=False), time.monotonic()

    def handle(_channel, number: int) -> None:
        ran.append(number)
        if number == 1:
            threads.pass_on()
            gate.wait(20)

    def turn_loop(wait: bool) -> bool:
        turned.append(wait)
        return False

    threads = threads_for(2, handle, turn_loop=turn_loop, is_loop_running=lambda: loop_runs, is_loop_lent=lambda: True)
    threads.put([Waiting((channel, number), now) for number in (1, 2)])
    wait_until(lambda: ran == [1, 2], "the second request runs while the first one waits")
    gate.set()
    wait_until(lambda: not threads.is_awake, "both threads sleep")
    gate.clear()
    before = len(turned)
    threads.put([Waiting((channel, 1), now)])
    if not loop_runs:
        wait_until(lambda: len(turned) > before, "another thread is asked to run the loop")
    else:
        wait_until(lambda: ran == [1, 2, 1], "it runs")
        assert threads._sleeping == 1
        assert len(turned) == before
    gate.set()
    threads.stop(20)


def test_nothing_is_passed_on_by_a_thread_of_another_or_where_connections_are_short():
    threads = threads_for(2, never, is_held_up=lambda: True)
    threads.pass_on()
    threads._own.state = ThreadState()
    threads.pass_on()
    assert not threads.states


def test_a_request_that_computes_for_long_holds_no_other_up():
    over, channel = threading.Event(), SimpleNamespace(gone=False)

    def handle(_channel, request) -> None:
        if request == "quick":
            over.set()
        while not over.is_set():
            sum(range(1000))

    threads = threads_for(2, handle)
    threads.put([Waiting((channel, "long"), time.monotonic())])
    wait_until(lambda: not threads.waiting, "the long one runs")
    threads.put([Waiting((channel, "quick"), time.monotonic())])
    end = time.monotonic() + 20
    while not over.is_set() and time.monotonic() < end:  # as the loop does, every time it comes to run
        threads.wake_for_waiting()
    assert over.wait(0)
    threads.stop(20)


def test_a_channel_and_the_times_of_its_request_are_no_cycle():
    """They refer to each other while it runs; then a client's buffers would wait for the collector."""
    with socket.socket() as sock:
        channel = Channel(sock, SimpleNamespace(peer=None), None, Options())
        timer = Timer("GET", channel)
        timer.stop("/", 200)
        gone = weakref.ref(timer)
        own.times = Times("", 0.0)
        del timer, channel
        assert gone() is None
