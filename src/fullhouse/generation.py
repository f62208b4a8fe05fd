"""One generation, in a fresh interpreter: `python -m fullhouse.generation ORDER`, run by the supervisor alone.

It finds the project, plans and loads it anew, so that a reload serves the code, the settings and the limits of now.
"""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from fullhouse.cli.main import make_parser
from fullhouse.db import pools
from fullhouse.errors import ApplicationError, DatabaseError, FullhouseError
from fullhouse.site.databases import (
    DatabaseHooks,
    aliases_by_slot_file,
    allot,
    fleet_trouble,
    forbid_opening,
    put_into_force,
    start_keepers,
)
from fullhouse.site.forking import close_connections, threads_and_sockets
from fullhouse.site.planned import Planned, plan_for
from fullhouse.site.routes import remember_routes
from fullhouse.supervisor import master
from fullhouse.supervisor.gunicorn_settings import gunicorn_settings
from fullhouse.supervisor.hooks import Hooks, report_failure
from fullhouse.supervisor.lifeline import Lifeline
from fullhouse.supervisor.processes import die_with_parent
from fullhouse.supervisor.reports import send
from fullhouse.telemetry.rows import Database, DatabaseGauges, DatabaseTotals


@dataclass(frozen=True)
class Order:
    """What the supervisor wants. words: of `fullhouse serve`. listeners, reports, lifeline: descriptors.

    supervisor: its pid. board: path of the stats board. generation: the number of this one.
    alone: whether no other runs, under another plan. worker_memory: bytes that a worker of another takes. may_preload:
    False once that was tried, and is not safe.
    """

    words: list[str]
    listeners: list[int]
    reports: int
    lifeline: int
    supervisor: int
    board: str
    generation: int
    alone: bool
    worker_memory: int | None = None
    may_preload: bool = True


@dataclass(frozen=True)
class Told:
    """A project that reports to the supervisor when its application does not load.

    shows_syntax_errors: whether gunicorn's reloader is on, which shows them in the browser and waits.
    """

    planned: Planned
    pipe: int
    shows_syntax_errors: bool

    def load_application(self) -> Callable[..., Any]:
        remember_routes()
        try:
            return self.planned.static.in_front_of(self.planned.project.load_application())
        except ApplicationError as error:
            if not (self.shows_syntax_errors and isinstance(error.__cause__, SyntaxError)):
                report_failure(self.pipe, error, in_log=True)
            raise

    def load_what_requests_need(self) -> None:
        self.planned.project.load_what_requests_need()


def main(order: Order) -> int:
    """Serve until asked to stop. Returns the exit code."""
    die_with_parent(order.supervisor)
    for descriptor in (*order.listeners, order.reports, order.lifeline):
        os.set_inheritable(descriptor, False)
    arguments = make_parser().parse_args(order.words)
    try:
        planned, values = _plan(order, arguments)
    except FullhouseError as error:
        print(f"fullhouse: {error}", file=sys.stderr, flush=True)
        report_failure(order.reports, error, in_log=True)
        return error.exit_code
    if not values["preload_app"]:
        forbid_opening()
    before = threads_and_sockets()
    return master.serve(
        Told(planned, order.reports, planned.settings.reload),
        values,
        with_traceback=arguments.traceback,
        freeze_gc=planned.settings.freeze_gc,
        may_fork=lambda: begin_anew_if_unsafe(order, before),
    )


def _plan(order: Order, arguments: Namespace) -> tuple[Planned, dict[str, Any]]:
    """Make the plan and report it; the plan, and gunicorn's settings under it. Raises FullhouseError."""
    planned = plan_for(arguments.project, arguments, order.worker_memory)
    values = gunicorn_settings(planned.settings, planned.plan, planned.project.name, DatabaseHooks())
    budgets = allot(planned.plan, planned.settings)
    if order.alone:
        for path, budget in budgets.items():
            put_into_force(path, budget)
        start_keepers(planned.plan)
    elif order.may_preload:  # else they are said; the banner has shown those of the first one
        for note in planned.plan.notes:
            print(f"fullhouse: {note}", file=sys.stderr, flush=True)
    aliases = aliases_by_slot_file(planned.plan)
    published = {str(path): asdict(budget) | {"aliases": aliases[path]} for path, budget in budgets.items()}
    beside = [asdict(one) for one in planned.programs]
    check = planned.migration_check and asdict(planned.migration_check)
    workers = planned.plan.workers
    send(order.reports, "planned", workers=workers, budgets=published, programs=beside, migration_check=check)
    hooks = Hooks(
        order.reports,
        Lifeline.make(order.lifeline),
        lambda application: make_ready(planned, application),
        Path(order.board),
        order.generation,
        look_at_pools,
    )
    if not order.alone:  # the site has started already, and another generation serves
        values.pop("on_starting", None)
    return planned, hooks.added_to(values) | {
        "bind": [f"fd://{descriptor}" for descriptor in order.listeners],
        "pidfile": None,  # the supervisor's
        "preload_app": values["preload_app"] and order.may_preload,
    }


def begin_anew_if_unsafe(order: Order, before: set[str]) -> None:
    """Where loading the application has left what a fork must not share, become a master that has not loaded it.

    before: the threads and sockets that there were.
    """
    found = sorted(close_connections() | (threads_and_sockets() - before))
    if not found:
        forbid_opening()
        return
    print(
        f"fullhouse: Loading the application opened or started {', '.join(found)}, which workers cannot share. So each "
        "worker loads it itself, and needs more memory. To have them share it, begin with that on first use; "
        "preload = False saves the attempt.",
        file=sys.stderr,
        flush=True,
    )
    for descriptor in (*order.listeners, order.reports, order.lifeline):
        os.set_inheritable(descriptor, True)
    words = json.dumps(asdict(replace(order, may_preload=False)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], words])  # noqa: S606 - a path of our own


def look_at_pools() -> list[Database]:
    """Of this worker, for the stats board."""
    return [
        Database(
            pool.name,
            DatabaseGauges(
                connections=pool.total,
                in_use=pool.in_use,
                idle=pool.idle,
                waiting=pool.waiting,
                slots=pool.slots_held,
                budget=pool.slots_budget,
                limit=min(pool.max_size or pool.slots_budget, pool.slots_budget),
            ),
            DatabaseTotals(pool.checkouts, pool.checkouts_refused, pool.connects, pool.connects_failed),
            pool.waits,
            pool.connect_times,
            pool.uses,
        )
        for pool in pools.statistics()
    ]


def make_ready(planned: Planned, application: Callable[..., Any]) -> None:
    """Obtain a connection for every pooled alias, and let the application answer the warm-up path.

    Raises ApplicationError, or DatabaseError where a pool gets no connection.
    """
    from fullhouse.db.errors import ConnectionUnavailable

    for alias in (alias for server in planned.plan.servers for alias in server.limit.pooled):
        try:
            _connect_once(alias)
        except ConnectionUnavailable as error:  # whose text has all the numbers
            if alias not in planned.settings.required:
                continue
            raise DatabaseError(f"A worker cannot connect to {alias!r}: {error}") from None
        except Exception as error:
            raise ApplicationError(f"A worker cannot connect to {alias!r}: {error}") from error
    if planned.settings.warm_up is not None:
        _warm_up(application, planned.settings.warm_up)


def _connect_once(alias: str) -> None:
    """In a fleet, where all slots may be in use elsewhere, for as long as it takes: the supervisor bounds it."""
    from django.db import connections

    from fullhouse.db.errors import PoolExhausted

    while True:
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT 1")
                cursor.fetchall()
            connections[alias].close()
        except PoolExhausted:
            trouble = fleet_trouble(alias)
            if trouble is None:
                raise
            if trouble:
                raise DatabaseError(f"{alias!r}: {trouble}") from None
        else:
            return


def _warm_up(application: Callable[..., Any], path: str) -> None:
    from django.conf import settings

    hosts = [host.removeprefix(".") for host in settings.ALLOWED_HOSTS if host != "*"]
    environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": hosts[0] if hosts else "localhost"}
    setup_testing_defaults(environ)
    answers: list[str] = []
    try:
        body = application(environ, lambda status, *_: answers.append(status))
        try:
            for _ in body:
                pass
        finally:
            body.close()
    except Exception as error:
        raise ApplicationError(f"The warm-up path {path} fails: {type(error).__name__}: {error}") from error
    if answers[-1][0] not in "23":
        raise ApplicationError(f"The warm-up path {path} returned {answers[-1]}; expected 2xx or 3xx.")


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1]))))
