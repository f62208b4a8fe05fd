"""From our options and the plan to gunicorn's settings, checked by gunicorn itself."""

import functools
import os
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any, Protocol

from gunicorn.config import Config
from gunicorn.workers import base
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

from fullhouse.errors import ConfigurationError, described
from fullhouse.plan.plan import Plan
from fullhouse.settings.layers import nearest
from fullhouse.settings.table import OPTIONS, Settings
from fullhouse.supervisor.gunicorn_args import OURS
from fullhouse.worker import Worker
from fullhouse.worker.admission.queue import AdmissionRules
from fullhouse.worker.http.refusal import OverloadAnswer
from fullhouse.worker.options import Options
from fullhouse.worker.stuck import Queries
from fullhouse.worker.time_limits import TimeLimits
from fullhouse.worker.wsgi.access_log import JSON

MAX_REQUESTS_JITTER = 0.05
# Clients that a worker keeps at once: idle and slow ones cost a descriptor and a few KB each. Half of the descriptors
# are left to the requests that run, as the plan counts them.
MAX_CONNECTIONS = 10_000
# Options that gunicorn's workers do not have.
OF_OUR_WORKER = (
    *("header_timeout", "transfer_timeout", "minimum_rate", "body_memory", "transfer_memory", "max_body", "freeze_gc"),
    *("probes", "live_path", "ready_path", "queue_limit", "queue_target", "wait_timeout", "client_share"),
    *("critical_paths", "sheddable_paths", "priority", "overload_page", "request_timeout", "request_timeouts"),
    *("max_worker_memory", "slow_request", "server_timing"),
)


class DatabaseHooks(Protocol):
    """What the database side gives a worker.

    around: wraps the application. is_held_up: whether requests wait for connections. queries: those that run.
    tell_waits: has a function called by each thread that is about to wait for a database. thread_ends: closes the
    connections of the thread that calls it. show_errors: has the site's errors written into a log, if nothing else
    shows them.
    """

    @property
    def around(self) -> Callable[[Any], Any]: ...
    @property
    def is_held_up(self) -> Callable[[], bool]: ...
    @property
    def queries(self) -> Queries: ...
    @property
    def tell_waits(self) -> Callable[[Callable[[], object]], None]: ...
    @property
    def thread_ends(self) -> Callable[[], object]: ...
    @property
    def show_errors(self) -> Callable[[Any], None]: ...


def gunicorn_settings(settings: Settings, plan: Plan, project: str, hooks: DatabaseHooks) -> dict[str, Any]:
    """gunicorn's settings by name, every one accepted by gunicorn. Raises ConfigurationError.

    hooks: what each worker gets once its application is loaded.
    """

    def post_worker_init(worker: base.Worker) -> None:
        _quit_without_lock(worker)
        worker.wsgi = hooks.around(worker.wsgi)
        hooks.show_errors(worker.log)
        if isinstance(worker, Worker):
            worker.is_held_up, worker.queries = hooks.is_held_up, hooks.queries
            worker.thread_ends = hooks.thread_ends
            hooks.tell_waits(worker.about_to_wait)

    if settings.reload and settings.preload and "preload" in settings.sources:
        raise ConfigurationError(
            f"{settings.sources['reload']}: reload and preload exclude each other: only a worker that loads the "
            "application itself can load it again.\nLeave one of them out."
        )
    values: dict[str, Any] = {gunicorn: getattr(settings, ours) for gunicorn, ours in OURS.items()}
    values |= {
        "bind": list(settings.bind),
        "preload_app": settings.preload and not settings.reload,
        "workers": plan.workers,
        "threads": plan.threads,
        "worker_class": _worker_class(settings, plan),
        "worker_connections": max(plan.threads + 1, min(MAX_CONNECTIONS, plan.machine.open_files // 2)),
        "max_requests_jitter": round(settings.max_requests * MAX_REQUESTS_JITTER),
        "proc_name": settings.process_name or f"fullhouse: {project}",
        "pythonpath": ",".join(settings.python_path) or None,
        "raw_env": [f"{name}={value}" for name, value in settings.env.items()],
        # The default is one path for all of a user's servers, which the last one started takes over.
        "control_socket_disable": True,
        "post_worker_init": post_worker_init,
    }
    theirs = _passed_through(settings)
    if callable(theirs.get("post_worker_init")):
        values["post_worker_init"] = both(post_worker_init, theirs["post_worker_init"])
        theirs = {name: value for name, value in theirs.items() if name != "post_worker_init"}
    values = checked({**values, **theirs})
    refuse_other_user(values.get("user"), values.get("group"), settings.sources.get("gunicorn", "gunicorn"))
    return values


def refuse_other_user(user: Any, group: Any, said_by: str) -> None:
    """Workers of another user than the master's would look for the host's slots in another folder.

    Raises ConfigurationError.
    """
    config = Config()
    for name, value in (("user", user), ("group", group)):
        if value is not None:
            config.set(name, value)
    if (config.uid, config.gid) != (os.geteuid(), os.getegid()):
        raise ConfigurationError(
            f"{said_by}: user and group are {config.uid} and {config.gid}, and this process is {os.geteuid()} and "
            f"{os.getegid()}: workers of another user cannot share the budget.\nRun the whole site as that user, with "
            "User= of systemd, user= of supervisord, or sudo -u."
        )


def both(ours: Callable[..., None], theirs: Callable[..., None] | None) -> Callable[..., None]:
    """A hook that calls ours, and then the user's own."""
    if theirs is None:
        return ours

    @functools.wraps(ours)  # gunicorn counts the arguments
    def call_both(*arguments: Any) -> None:
        ours(*arguments)
        theirs(*arguments)

    return call_both


def _worker_class(settings: Settings, plan: Plan) -> str | type[Worker]:
    worker_class = Worker
    if settings.worker_class != OPTIONS["worker_class"].default:
        found = thread_worker(settings.worker_class, settings.sources["worker_class"])
        if not issubclass(found, Worker) or found.options is not Worker.options:
            _refuse_unknown_to(settings)
            return settings.worker_class
        worker_class = found
    return worker_class.configured(
        Options(
            header_timeout_s=settings.header_timeout,
            transfer_grace_s=settings.transfer_timeout,
            minimum_rate_bytes_s=settings.minimum_rate,
            body_memory_bytes=settings.body_memory,
            transfer_memory_bytes=plan.transfer_memory,
            max_body_bytes=settings.max_body,
            freeze_gc=settings.freeze_gc,
            live_path=settings.live_path if settings.probes else None,
            ready_path=settings.ready_path if settings.probes else None,
            admission=AdmissionRules(settings.queue_limit, settings.queue_target, settings.client_share),
            wait_timeout_s=settings.wait_timeout,
            critical_paths=settings.critical_paths,
            sheddable_paths=settings.sheddable_paths,
            priority_of=None if settings.priority is None else _function(settings.priority),
            overload_answer=OverloadAnswer() if settings.overload_page is None else _page(settings.overload_page),
            time_limits=TimeLimits(settings.request_timeout or inf, settings.request_timeouts),
            max_memory_bytes=settings.max_worker_memory,
            server_timing=settings.server_timing,
            slow_request_s=settings.slow_request,
        )
    )


def _refuse_unknown_to(settings: Settings) -> None:
    """Raise ConfigurationError for options that only our worker has, beside another that was chosen."""
    idle = [f"{name} ({settings.sources[name]})" for name in OF_OUR_WORKER if name in settings.sources]
    if settings.access_log_format == JSON:
        idle.append(f"access_log_format = {JSON} ({settings.sources['access_log_format']})")
    if idle:
        raise ConfigurationError(
            f"{settings.sources['worker_class']}: worker_class {settings.worker_class} does not know "
            f"{', '.join(idle)}.\nLeave them out, or worker_class; a subclass of fullhouse.worker.Worker has them "
            "where it sets no options of its own."
        )


def thread_worker(name: str, said_by: str) -> type:
    """The worker class of this name, which must run each request in a thread.

    gevent and its like run many in one thread, to which Django gives one connection of each database.

    Raises ConfigurationError.
    """
    kind = name.partition(".")[0]
    if kind not in ("gevent", "eventlet", "tornado", "gevent_wsgi", "gevent_pywsgi"):
        found = checked_class(name)
        if issubclass(found, (Worker, SyncWorker, ThreadWorker)):
            return found
    raise ConfigurationError(
        f"{said_by}: worker_class {name} does not run each request in a thread of its own, "
        "which the plan and the pools count on.\nLeave it out, or use fullhouse.worker.Worker, gthread or sync."
    )


def refuse_our_worker(name: str | None) -> None:
    """gunicorn's own -k takes the place of the class that has the options. Raises ConfigurationError."""
    if name is not None and issubclass(checked_class(name), Worker):
        raise ConfigurationError(
            f"gunicorn -k {name}: its options are those of the class itself, not of FULLHOUSE.\n"
            "Leave -k out: fullhouse.conf names the worker, by worker_class in FULLHOUSE where it is not the default."
        )


def checked_class(name: str) -> type:
    """The worker class that gunicorn finds by this name. Raises ConfigurationError."""
    config = Config()
    try:
        config.set("worker_class", name)
        found: type = config.worker_class
    except Exception as error:  # importing runs code of others
        raise ConfigurationError(f"gunicorn refuses worker_class = {name!r}: {described(error)}") from error
    return found


def _function(name: str) -> Callable[[Any], str | None]:
    module, _, function = name.rpartition(".")
    try:
        found: Callable[[Any], str | None] = getattr(import_module(module), function)
    except Exception as error:  # importing runs code of others
        raise ConfigurationError(f"priority: {name} cannot be imported: {described(error)}") from error
    return found


def _page(path: str) -> OverloadAnswer:
    try:
        return OverloadAnswer(Path(path).read_bytes(), "text/html; charset=utf-8")
    except OSError as error:
        raise ConfigurationError(f"overload_page: {path} cannot be read: {error.strerror}.") from error


def _quit_without_lock(worker: base.Worker) -> None:
    """Ctrl-C ends a worker as SIGTERM does, once its running requests are answered.

    gthread's own handler of SIGQUIT takes the lock of its thread pool, which the interrupted main thread may hold:
    the worker would hang until the graceful timeout. SIGINT from the terminal is ignored, for the master sends
    SIGQUIT on it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, worker.handle_exit)


def _passed_through(settings: Settings) -> Mapping[str, Any]:
    said_by = settings.sources.get("gunicorn", "gunicorn")
    for name in settings.gunicorn:
        if name in OURS:
            raise ConfigurationError(f"{said_by}: gunicorn's {name} is the option {OURS[name]!r} here; set that one.")
    return settings.gunicorn


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as gunicorn's own validators accept them. Raises ConfigurationError."""
    config = Config()
    for name, value in values.items():
        if name not in config.settings:
            raise ConfigurationError(f"gunicorn has no setting {name!r}.{nearest(name, config.settings)}")
        try:
            config.set(name, value)
            getattr(config, name, None)  # imports a class that the value names
        except (TypeError, ValueError, AssertionError, AttributeError, ImportError, RuntimeError) as error:
            reason = str(error).partition("\n")[0].rstrip(": ")  # a whole traceback may follow
            raise ConfigurationError(f"gunicorn refuses {name} = {value!r}: {reason}.") from error
    return dict(values)


def umask_of(values: Mapping[str, Any]) -> int:
    """gunicorn's umask, under which it makes the files of Unix sockets too; its default lets everybody connect."""
    config = Config()
    if "umask" in values:
        config.set("umask", values["umask"])
    return int(config.umask)
