"""gunicorn's worker: its configuration, signals and life, around the loop and the threads.

The main thread runs the loop, or lends it to the thread that runs requests; signal handlers run in the main thread.
Who wants the loop to look writes to gunicorn's pipe.
"""

import faulthandler
import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from mmap import mmap
from typing import Any, ClassVar

from gunicorn.config import PostRequest, PreRequest
from gunicorn.workers import base

from fullhouse.telemetry.tally import Tally
from fullhouse.worker.admission.queue import Admission, Waiting
from fullhouse.worker.channel import Channel
from fullhouse.worker.channels import Channels
from fullhouse.worker.dump import dump
from fullhouse.worker.http.refusal import body_bytes
from fullhouse.worker.http.request import Request
from fullhouse.worker.http.rules import http_rules
from fullhouse.worker.loop import Loop
from fullhouse.worker.memory import resident_bytes
from fullhouse.worker.options import Options, refuse_unsupported, with_gunicorn_settings
from fullhouse.worker.poller import new_poller
from fullhouse.worker.probes import Probes
from fullhouse.worker.processors import idle_s
from fullhouse.worker.siblings import Siblings
from fullhouse.worker.spans import spans
from fullhouse.worker.stuck import DEFAULT_ALL_BUSY_S, NoQueries, Queries, StuckRequests, describe
from fullhouse.worker.threads import Threads, ThreadState
from fullhouse.worker.timer import see_running
from fullhouse.worker.tls import TlsSocket, server_context
from fullhouse.worker.triage import Job, Triage
from fullhouse.worker.turns import Figures, LoopChoice, LoopTurns, Way
from fullhouse.worker.wsgi.access_log import AccessLog
from fullhouse.worker.wsgi.environ import Environ, EnvironFactory
from fullhouse.worker.wsgi.gateway import Gateway
from fullhouse.worker.wsgi.response import Response

_LAST_WORD_S = 0.5  # what is left to log which requests are cut, before the master ends this process


class Worker(base.Worker):  # type: ignore[misc] # gunicorn ships no types
    """`worker_class = "fullhouse.worker.Worker"`: a loop that waits for clients, threads for requests."""

    options: ClassVar[Options] = Options()
    _shared: ClassVar[mmap] = mmap(-1, Siblings.BYTES)  # made in the master, so that all workers share it

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._turns = LoopTurns()
        self._choice = LoopChoice()
        self.tell_end: Callable[[str], object] = bool  # where others look for it; the first reason counts
        super().__init__(*arguments, **settings)
        self.tally = Tally()
        # What others know, and put in place before it runs.
        self.site_is_stopping: Callable[[], bool] = lambda: False
        self.is_held_up: Callable[[], bool] = lambda: False  # requests wait for database connections
        self.queries: Queries = NoQueries()
        self.thread_ends: Callable[[], object] = bool  # by each thread that ends, to close what was opened in it
        self._states: Sequence[ThreadState] = ()  # of the threads, once it runs

    @classmethod
    def configured(cls, options: Options) -> "type[Worker]":
        """The worker class with these options, to be given to gunicorn as its worker_class."""
        return type(cls.__name__, (cls,), {"options": options, "__module__": cls.__module__})

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """The master calls this at start. Raises ConfigurationError for what this worker does not have."""
        del log
        refuse_unsupported(cfg)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        if self.options.freeze_gc:
            # Where our master has, looking at all objects would copy their memory. gunicorn's own master has not.
            if not (self.cfg.preload_app and gc.get_freeze_count()):
                gc.collect()
                gc.freeze()
            gc.set_threshold(*self.options.gc_threshold)
        sys.setswitchinterval(self.options.switch_interval_s)

    def run(self) -> None:
        """Serve until asked to stop, then until what was begun is finished, at most graceful_timeout."""
        options = with_gunicorn_settings(self.options, self.cfg)
        environs = EnvironFactory(self.cfg, multithread=self.cfg.threads > 1)
        access_log = self._access_log = AccessLog(self.log, self.cfg.access_log_format, environs)
        self._options = options
        siblings = Siblings(self._shared, self.age) if options.siblings else None
        self._threads = Threads(
            threads=self.cfg.threads,
            admission=Admission(options.admission, siblings.publish_flow if siblings else None),
            owner=self,
            log=self.log,
        )
        self._states = self._threads.states
        self._stuck = StuckRequests(
            options.time_limits,
            self.queries,
            self.log,
            self._give_up,
            self._replace,
            threads=self.cfg.threads,
            all_busy_s=self.cfg.timeout or DEFAULT_ALL_BUSY_S,
        )
        poller = new_poller()
        self._channels = Channels(
            poller=poller,
            threads=self.cfg.threads,
            rules=http_rules(self.cfg, options.body_memory_bytes, options.max_body_bytes),
            options=options,
            probes=Probes(options.live_path, options.ready_path, self._is_ready),
            triage=self._triage(options),
            tally=self.tally,
            log=self.log,
            access_log=access_log,
            wrap_tls=self._tls_wrapper(),
        )
        self.run_request = self._gateway(options, environs).handle
        self._loop = Loop(
            poller=poller,
            listeners=[listener.sock for listener in self.sockets],
            wake_fd=self.PIPE[0],
            channels=self._channels,
            max_connections=options.worker_connections,
            owner=self,
            log=self.log,
            siblings=siblings,
        )
        self.notify()
        try:
            while self.alive:
                self._run_loop()
            self._stop()
        finally:
            access_log.flush()

    def _run_loop(self) -> None:
        to_be_run = self._loop.run_once() and self._threads.is_awake
        if to_be_run and self._choice.way is not Way.MAIN:
            if self._choice.way is Way.KEPT:
                self._threads.leave_one()
            self._turns.lend()

    @property
    def alive(self) -> bool:
        """False once this worker is to end, which gunicorn, a signal or a thread may say at any time."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        self._alive = alive
        if not alive:
            self.tell_end("stopped")
            self._turns.recall()
            self.wake_loop()

    def _is_ready(self) -> bool:
        return self.alive and not self.site_is_stopping()

    def _triage(self, options: Options) -> Triage:
        return Triage(
            options.critical_paths,
            options.sheddable_paths,
            options.priority_of,
            options.wait_timeout_s,
            counts_clients=options.admission.client_share < 1,
            log=self.log,
        )

    def wake_loop(self) -> None:
        if self.PIPE:
            with suppress(BlockingIOError):  # it is full: the loop will wake all the same
                os.write(self.PIPE[1], b"c")

    def send_made(self) -> None:
        self._channels.send_made()
        if self._channels.is_owed:
            self.wake_loop()

    def about_to_wait(self) -> None:
        """The calling thread is about to wait for a database."""
        if self._choice.way is Way.PASSED_ON:
            self._channels.send_made()
            self._threads.pass_on()

    def is_loop_lent(self) -> bool:
        return self._turns.is_lent

    def is_loop_running(self) -> bool:
        return self._turns.is_running

    def turn_loop(self, wait: bool) -> bool:
        return self._turns.turn(self._wait_in_loop if wait else self._look_in_loop)

    def _wait_in_loop(self) -> None:
        self._loop.run_once(dedicated=False)

    def _look_in_loop(self) -> None:
        self._loop.run_once(wait=False, dedicated=False)

    def _overloaded(self, request: Request) -> bytes:
        return self._options.overload_answer.bytes_for(request, self._threads.admission.retry_after_s())

    def shed(self, channel: Channel, request: Request) -> None:
        """Answer a request that will not run: the loop sends it."""
        if not self.alive:
            request.force_close()
        channel.began_s = 0.0  # counted as shed, not as served
        channel.must_close, channel.small_response = request.must_close, self._overloaded(request)
        self._access_log.write_answer(
            channel, request, HTTPStatus.SERVICE_UNAVAILABLE, body_bytes(channel.small_response)
        )
        request.body.close()
        self._channels.take_back(channel, answered=True)

    def _give_up(self, channel: Channel, request: Request) -> None:
        request.force_close()
        self._channels.give_up(channel, request, self._overloaded(request))

    def _replace(self) -> None:
        self._end("stuck_request")

    def _end(self, reason: str) -> None:
        """Have this worker replaced."""
        self.tell_end(reason)
        self.alive = False

    def _gateway(self, options: Options, environs: EnvironFactory) -> Gateway:
        logs_requests = self.log.loglevel <= self.log.LOG_LEVELS["debug"]  # all that gunicorn's own hook does
        calls_pre = self.cfg.pre_request is not PreRequest.default or logs_requests
        calls_post = self.cfg.post_request is not PostRequest.default
        return Gateway(
            self.wsgi,
            environs,
            self._access_log,
            options,
            self.log,
            is_stopping=lambda: not self.alive,
            give_back=self._give_back_at_once if calls_post else self._channels.take_back,
            pre_request=self._call_pre_request if calls_pre else None,
            post_request=self._call_post_request if calls_post else None,
            spans=spans(),
        )

    def _give_back_at_once(self, channel: Channel, *, answered: bool) -> None:
        """Its response does not wait for what its thread has yet to do."""
        self._channels.take_back(channel, answered=answered)
        self.send_made()

    def _call_pre_request(self, request: Request) -> None:
        self.cfg.pre_request(self, request)

    def _call_post_request(self, request: Request, environ: Environ, response: Response) -> None:
        self.cfg.post_request(self, request, environ, response)

    def _tls_wrapper(self) -> Any:
        if not self.cfg.is_ssl:
            return None
        context, ragged_eofs = server_context(self.cfg), self.cfg.suppress_ragged_eofs

        def wrap(sock: socket.socket) -> TlsSocket:
            return TlsSocket(sock, context, ragged_eofs=ragged_eofs)

        return wrap

    # what the loop asks for

    def in_flight(self) -> int:
        return self._threads.in_flight()

    @property
    def waiting(self) -> int:
        return self._threads.waiting

    def wake_for_waiting(self) -> None:
        self._threads.wake_for_waiting()

    def put(self, batch: list[Waiting[Job]]) -> None:
        """Count requests and hand them over. The last one that this worker may serve makes it stop."""
        self.nr += len(batch)
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self._end("max_requests")
        self._threads.put(batch)

    def end_round(self) -> None:
        self._access_log.flush()
        choice, now = self._choice, self._channels.now
        if now >= choice.look_at:
            idle = idle_s() if choice.is_trying else 0.0
            figures = (self.tally.requests, self.tally.seconds, self._loop.waited_s, time.process_time(), idle)
            choice.look(now, Figures(*figures), self.in_flight())
            if choice.way is Way.MAIN:
                self._turns.give_back()
            elif choice.way is Way.KEPT and self._turns.is_lent:
                self._threads.leave_one()

    def tick(self) -> None:
        """Now and then: give the heartbeat, look after requests and memory, and end if the master has gone."""
        self.notify()
        now = time.monotonic()
        self._stuck.look(self._threads.states, now)
        see_running(self._threads.states, now)
        self._recycle_if_large()
        admission = self._threads.admission
        self.tally.queued, self.tally.shed = admission.waiting, admission.shed_by
        self.tally.peak_queued = max(self.tally.peak_queued, admission.take_peak())
        self.tally.oldest_wait_s = admission.oldest_wait_s(now)
        self.tally.busy = self._threads.running
        if self.ppid != os.getppid() and self.alive:
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _recycle_if_large(self) -> None:
        limit = self._options.max_memory_bytes
        if limit is not None and self.alive and resident_bytes() > limit:
            self.log.warning("This worker uses more than %d bytes of memory and will be replaced.", limit)
            self._end("max_worker_memory")

    def _stop(self) -> None:
        self._loop.stop()
        deadline = time.monotonic() + max(0.0, self.cfg.graceful_timeout - _LAST_WORD_S)
        while self._loop.connections and time.monotonic() < deadline:
            self._loop.run_once()
        self._log_cut()
        self._channels.close()
        self._threads.stop(max(0.0, min(1.0, deadline - time.monotonic())))

    def _log_cut(self) -> None:
        """A line for each request that has not ended in time, and what it is at."""
        now = time.monotonic()
        for state in self._threads.states:
            if state.request is not None:
                self.log.warning("A request is cut: %s", describe(state, now, self.queries))

    def dump(self) -> str:
        """What every thread is at; from any of them."""
        return dump(self._states, self.queries, time.monotonic())

    def handle_abort(self, sig: int, frame: Any) -> None:
        """The master ends a worker whose loop is stuck: log where each thread is, and end."""
        self.tell_end("timeout")
        faulthandler.dump_traceback(all_threads=True)
        super().handle_abort(sig, frame)
