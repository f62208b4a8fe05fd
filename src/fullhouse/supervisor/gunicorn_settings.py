"""From our options and the plan to gunicorn's settings, checked by gunicorn itself."""

import argparse
import shlex
import signal
from collections.abc import Callable, Mapping
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any, Protocol

from gunicorn.config import Config
from gunicorn.workers import base

from fullhouse.errors import ConfigurationError, described
from fullhouse.plan.planner import Plan
from fullhouse.settings import OPTIONS, Settings, from_text, layered, nearest
from fullhouse.worker import Worker
from fullhouse.worker.admission import AdmissionRules
from fullhouse.worker.options import Options
from fullhouse.worker.refusal import OverloadAnswer
from fullhouse.worker.stuck import Queries
from fullhouse.worker.time_limits import TimeLimits

MAX_REQUESTS_JITTER = 0.05
# Clients that a worker keeps at once: idle and slow ones cost a descriptor and a few KB each. Half of the descriptors
# are left to the requests that run, as the plan counts them.
MAX_CONNECTIONS = 10_000
# Our option for each setting of gunicorn that has one.
OURS = {option.gunicorn: option.name for option in OPTIONS.values() if option.gunicorn}


class Equipment(Protocol):
    """What the database rooms give a worker.

    around: wraps the application. is_held_up: whether requests wait for connections. queries: those that run.
    thread_ends: closes the connections of the thread that calls it. show_errors: has the site's errors written into a
    log, where nobody else shows them.
    """

    @property
    def around(self) -> Callable[[Any], Any]: ...
    @property
    def is_held_up(self) -> Callable[[], bool]: ...
    @property
    def queries(self) -> Queries: ...
    @property
    def thread_ends(self) -> Callable[[], object]: ...
    @property
    def show_errors(self) -> Callable[[Any], None]: ...


def gunicorn_settings(settings: Settings, plan: Plan, project: str, equipment: Equipment) -> dict[str, Any]:
    """gunicorn's settings by name, every one accepted by gunicorn. Raises ConfigurationError.

    equipment: what each worker gets once its application is loaded.
    """

    def post_worker_init(worker: base.Worker) -> None:
        _quit_without_lock(worker)
        worker.wsgi = equipment.around(worker.wsgi)
        equipment.show_errors(worker.log)
        if isinstance(worker, Worker):
            worker.is_held_up, worker.queries = equipment.is_held_up, equipment.queries
            worker.thread_ends = equipment.thread_ends

    values: dict[str, Any] = {gunicorn: getattr(settings, ours) for gunicorn, ours in OURS.items()}
    values |= {
        "bind": list(settings.bind),
        "workers": plan.workers,
        "threads": plan.threads,
        "worker_class": _worker_class(settings),
        "worker_connections": max(plan.threads + 1, min(MAX_CONNECTIONS, plan.machine.open_files // 2)),
        "max_requests_jitter": round(settings.max_requests * MAX_REQUESTS_JITTER),
        "proc_name": settings.process_name or f"fullhouse: {project}",
        "pythonpath": ",".join(settings.python_path) or None,
        "raw_env": [f"{name}={value}" for name, value in settings.env.items()],
        # The default is one path for all of a user's servers, which the last one started takes over.
        "control_socket_disable": True,
        "post_worker_init": post_worker_init,
    }
    return checked({**values, **_passed_through(settings)})


def _worker_class(settings: Settings) -> str | type[Worker]:
    if settings.worker_class != OPTIONS["worker_class"].default:
        return settings.worker_class
    return Worker.configured(
        Options(
            header_timeout_s=settings.header_timeout,
            transfer_grace_s=settings.transfer_timeout,
            minimum_rate_bytes_s=settings.minimum_rate,
            body_memory_bytes=settings.body_memory,
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
        )
    )


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


def from_gunicorn_cmd_args(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """`settings` with GUNICORN_CMD_ARGS laid over it: it keeps its meaning, and the plan takes it in.

    Raises ConfigurationError.
    """
    if not environ.get("GUNICORN_CMD_ARGS"):
        return settings
    parser = Config().parser()
    parser.exit_on_error = False
    try:
        namespace, unknown = parser.parse_known_args(shlex.split(environ["GUNICORN_CMD_ARGS"]))
    except (argparse.ArgumentError, ValueError) as error:  # ValueError: an open quote
        raise ConfigurationError(f"GUNICORN_CMD_ARGS: {error}.") from error
    if unknown:
        raise ConfigurationError(f"GUNICORN_CMD_ARGS: gunicorn has no option {unknown[0]}.")
    words = vars(namespace)
    given = {name: value for name, value in words.items() if value is not None and name not in ("args", "config")}
    if words.get("config"):
        raise ConfigurationError(
            f"GUNICORN_CMD_ARGS names the configuration file {words['config']}, which would hide the plan.\n"
            "Put its settings into FULLHOUSE['gunicorn'], or start gunicorn yourself with -c."
        )
    ours = {OURS[name]: _native(name, value) for name, value in given.items() if name in OURS}
    theirs = {name: value for name, value in given.items() if name not in OURS}
    if theirs:
        ours["gunicorn"] = {**settings.gunicorn, **theirs}
    return layered(settings, ours, "GUNICORN_CMD_ARGS")


def _native(name: str, value: Any) -> Any:
    """gunicorn's command line gives texts where our options are numbers, lists or pairs."""
    if name == "raw_env":
        value = shlex.join(value)
    return from_text(OURS[name], value, "GUNICORN_CMD_ARGS") if isinstance(value, str) else value
