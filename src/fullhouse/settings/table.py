"""Every option of fullhouse in one table.

The table is the frozen dataclass `Settings`: a field is an option, its metadata say how it is read, checked and
explained. The same table feeds the `FULLHOUSE` dict of a Django project, the `FULLHOUSE_*` environment variables,
the command line and the reference page (`docs/reference/settings.md`); `layers` fills it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from fullhouse.settings.kinds import (
    ADDRESS,
    ADDRESSES,
    ALIASES,
    COMMANDS,
    FOLDERS,
    MEMORY,
    PAIRS,
    PATH,
    SWITCH,
    TEXT,
    TIMES_BY_PATH,
    URL_PATH,
    URL_PATHS,
    Kind,
    one_of,
    positive_number,
    share,
    whole_number,
    whole_number_or,
)

ENVIRONMENT_PREFIX = "FULLHOUSE_"


@dataclass(frozen=True)
class Option:
    """One row of the table, as the command line, the environment and the reference page see it."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    gunicorn: str | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


def _option(kind: Kind, default: Any, group: str, help_text: str, gunicorn: str | None = None) -> Any:
    metadata = {"kind": kind, "group": group, "help": help_text, "gunicorn": gunicorn}
    return field(default_factory=lambda: default, metadata=metadata)


PLAN, SERVING, OVERLOAD, LOGS, PROCESS = "The plan", "Serving", "Overload", "Logs and figures", "The processes"
FLEET = "fleet"
NO_PAIRS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Settings:
    """The options in force. Frozen: for another value, make a new one with `layered`."""

    sizing: str = _option(
        one_of("fit", "recipe"),
        "fit",
        PLAN,
        "fit: one worker per core, and as many threads as the machine and the database can carry. recipe: the classic "
        "2 × cores + 1 workers and (limit - reserve) / connections_per_thread / workers threads.",
    )
    workers: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "Number of worker processes. Default: planned. WEB_CONCURRENCY also sets it.",
        "workers",
    )
    threads: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "Threads per worker: how many requests it runs at once. Default: planned.",
        "threads",
    )
    reserve: int | None = _option(
        whole_number(0),
        None,
        PLAN,
        "Database sessions left to others (people, cron jobs, other sites) on each server. Default: a tenth of the "
        "limit, at most 40, but no fewer than other users hold now. recipe: 40.",
    )
    hosts: int | str = _option(
        whole_number_or(1, FLEET),
        1,
        PLAN,
        "Number of hosts that serve this site and share the database's limit equally; or fleet: they share it among "
        "themselves, as each needs, however many there are.",
    )
    budget: int | None = _option(
        whole_number(1), None, PLAN, "Database sessions that this host may use. Default: (limit - reserve) / hosts."
    )
    connections_per_thread: int = _option(whole_number(1), 2, PLAN, "Connections that sizing=recipe counts per thread.")
    max_connections: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "The database's connection limit. Default: asked of the database; with this option, nothing connects to it.",
    )
    required: tuple[str, ...] = _option(
        ALIASES,
        ("default",),
        PLAN,
        "Databases that must be reachable at start. Any other may be down: the plan is made without it, and its first "
        "connection asks for its limit.",
    )
    cores: float | None = _option(positive_number(), None, PLAN, "Processor cores. Default: detected.")
    memory: int | None = _option(MEMORY, None, PLAN, "Memory of the machine. Default: detected.")
    open_files: int | None = _option(whole_number(64), None, PLAN, "Open-file limit of a process. Default: detected.")

    bind: tuple[str, ...] = _option(
        ADDRESSES,
        ("127.0.0.1:8000",),
        SERVING,
        "Address to listen on: HOST:PORT or unix:PATH. PORT=8080 in the environment means 0.0.0.0:8080.",
        "bind",
    )
    backlog: int = _option(
        whole_number(1), 2048, SERVING, "Maximum number of connections waiting to be accepted.", "backlog"
    )
    certfile: str | None = _option(PATH, None, SERVING, "TLS certificate (PEM); enables HTTPS.", "certfile")
    keyfile: str | None = _option(PATH, None, SERVING, "Private key of the certificate (PEM).", "keyfile")
    timeout: int = _option(
        whole_number(0),
        60,
        SERVING,
        "Replace a worker that shows no sign of life for this many seconds; 0: never.",
        "timeout",
    )
    graceful_timeout: int = _option(
        whole_number(1),
        60,
        SERVING,
        "Seconds that running requests have to finish on stop or reload.",
        "graceful_timeout",
    )
    boot_timeout: int = _option(
        whole_number(1),
        60,
        SERVING,
        "Seconds until all workers of a new generation must be ready; after that it is discarded.",
    )
    warm_up: str | None = _option(
        URL_PATH, None, SERVING, "Path that every worker must answer with 2xx or 3xx before it is ready. Default: none."
    )
    keepalive: int = _option(
        whole_number(0),
        30,
        SERVING,
        "Seconds to keep an idle client connection open; set it above the idle timeout of your load balancer.",
        "keepalive",
    )
    worker_class: str = _option(
        TEXT,
        "fullhouse.worker.Worker",
        SERVING,
        "Worker class: fullhouse.worker.Worker, a subclass of it, or gunicorn's gthread or sync.",
        "worker_class",
    )
    header_timeout: float = _option(
        positive_number(), 20.0, SERVING, "Seconds a client has to send the headers of a request."
    )
    transfer_timeout: float = _option(
        positive_number(), 20.0, SERVING, "Seconds a client may pause while sending a body or reading a response."
    )
    minimum_rate: int = _option(
        whole_number(1), 500, SERVING, "Minimum average transfer rate of a body or response, in bytes per second."
    )
    body_memory: int = _option(
        MEMORY, 1 << 20, SERVING, "Maximum request body kept in memory; a larger one goes to a temporary file."
    )
    transfer_memory: int | None = _option(
        MEMORY,
        None,
        SERVING,
        "Memory per worker for requests being received and responses being sent; beyond it they go to temporary files. "
        "Default: an eighth of the memory, shared by all workers, at most 64 MiB each.",
    )
    max_body: int | None = _option(
        MEMORY, 1 << 30, SERVING, "Maximum request body; a larger one gets 413, before the client is asked to send it."
    )
    preload: bool = _option(
        SWITCH,
        True,
        SERVING,
        "Load the application once, before the workers are forked, so that they share its memory. Where that starts "
        "threads or opens sockets or database connections, each worker loads it itself, and the log says so.",
        "preload_app",
    )
    static: bool = _option(
        SWITCH,
        True,
        SERVING,
        "Serve the files of STATIC_ROOT under STATIC_URL, where WhiteNoise is installed: pip install "
        "'fullhouse[static]'.",
    )
    freeze_gc: bool = _option(
        SWITCH, True, SERVING, "Exclude the loaded application from garbage collection, and collect less often."
    )
    probes: bool = _option(
        SWITCH, True, SERVING, "Answer the two paths below in the server itself; if off, they go to Django."
    )
    live_path: str = _option(
        URL_PATH, "/-/live", SERVING, "Liveness probe: answers 200 while the worker's event loop runs."
    )
    ready_path: str = _option(
        URL_PATH,
        "/-/ready",
        SERVING,
        "Readiness probe: answers 200 while the site takes requests, 503 once it is stopping.",
    )
    stop_delay: int = _option(
        whole_number(0),
        0,
        SERVING,
        "Seconds that a stopping site keeps taking requests, so that a load balancer first sees the 503 of ready_path.",
    )
    max_requests: int = _option(
        whole_number(0), 0, SERVING, "Replace a worker after this many requests, ± 5 %; 0: never.", "max_requests"
    )
    reload: bool = _option(
        SWITCH, False, SERVING, "Reload when code changes, except the settings. For development.", "reload"
    )

    queue_limit: int = _option(
        whole_number(1),
        1000,
        OVERLOAD,
        "Maximum number of requests waiting for a thread in each worker; excess requests get an immediate 503.",
    )
    queue_target: float = _option(
        positive_number(),
        0.05,
        OVERLOAD,
        "Acceptable waiting time in seconds. A queue that keeps requests longer is overloaded: the newest request then "
        "runs first, and one that has waited twice as long gets 503.",
    )
    wait_timeout: float = _option(
        positive_number(),
        30.0,
        OVERLOAD,
        "Seconds after which a waiting request gets 503, counted from X-Request-Start if a proxy sets it.",
    )
    client_share: float = _option(
        share(), 1.0, OVERLOAD, "Share of the queue that one client address may use; 1: unlimited."
    )
    critical_paths: tuple[str, ...] = _option(
        URL_PATHS, (), OVERLOAD, "Path prefixes whose requests run first and are shed last."
    )
    sheddable_paths: tuple[str, ...] = _option(
        URL_PATHS, (), OVERLOAD, "Path prefixes whose requests run last and are shed first."
    )
    priority: str | None = _option(
        TEXT,
        None,
        OVERLOAD,
        "module.function that takes a request (method, path, headers) and returns critical, normal or sheddable; asked "
        "when no path prefix matches.",
    )
    overload_page: str | None = _option(
        PATH, None, OVERLOAD, "HTML file to send with the 503. Default: one line of text."
    )
    request_timeout: float | None = _option(
        positive_number(),
        None,
        OVERLOAD,
        "Seconds a request may run. After that its stack is logged, its query is cancelled on the database server, and "
        "its client gets 503. Default: unlimited.",
    )
    request_timeouts: Mapping[str, float] = _option(
        TIMES_BY_PATH, NO_PAIRS, OVERLOAD, "request_timeout by path prefix; the longest prefix wins."
    )
    max_worker_memory: int | None = _option(
        MEMORY,
        None,
        OVERLOAD,
        "Replace a worker that uses more memory than this, once its requests are answered. Default: never.",
    )

    access_log: str | None = _option(
        PATH, None, LOGS, "File for the access log; - is the terminal. Default: none.", "accesslog"
    )
    error_log: str = _option(PATH, "-", LOGS, "File for the error log; - is the terminal.", "errorlog")
    log_file: str | None = _option(
        PATH,
        None,
        LOGS,
        "File for all output of the processes, rotated at 20 MB, 20 kept; fullhouse start sets it. Default: none.",
    )
    access_log_format: str = _option(
        TEXT,
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        LOGS,
        "Format of the access log, in gunicorn's atoms and those of Request times; json: an object for each request.",
        "access_log_format",
    )
    observe: str | None = _option(
        ADDRESS,
        None,
        LOGS,
        "Address of /metrics and of the live page, which only this machine gets: 127.0.0.1:PORT, 0.0.0.0:PORT or "
        "unix:PATH. Default: none.",
    )
    slow_request: float | None = _option(
        positive_number(),
        None,
        LOGS,
        "Seconds after which a request is logged when it has ended, with where its time went. Default: none is.",
    )
    server_timing: bool = _option(
        SWITCH,
        False,
        LOGS,
        "Tell clients where the time of their request went, in a Server-Timing header that browsers show. Whoever asks "
        "sees it.",
    )
    log_level: str = _option(
        one_of("debug", "info", "warning", "error", "critical"),
        "warning",
        LOGS,
        "Minimum level of the error log.",
        "loglevel",
    )

    process_name: str | None = _option(
        TEXT, None, PROCESS, 'Process name in ps and top. Default: "fullhouse: PROJECT".', "proc_name"
    )
    processes: Mapping[str, Any] = _option(
        COMMANDS,
        NO_PAIRS,
        PROCESS,
        "Programs that run beside the web workers, such as task workers, by name: a command, or a dict with command, "
        "count, connections, stop_signal and graceful_timeout.",
    )
    python_path: tuple[str, ...] = _option(
        FOLDERS, (), PROCESS, "Directories to put first on the import path.", "pythonpath"
    )
    env: Mapping[str, str] = _option(
        PAIRS,
        NO_PAIRS,
        PROCESS,
        "Environment variables for the workers. The settings module sees those given on the command line or in the "
        "environment, but not those it sets here itself.",
        "raw_env",
    )
    gunicorn: Mapping[str, Any] = _option(
        PAIRS, NO_PAIRS, PROCESS, "Any other gunicorn setting, by name; gunicorn checks the value."
    )

    # Where each value that is not a default came from: {"workers": "WEB_CONCURRENCY"}.
    sources: Mapping[str, str] = field(default_factory=lambda: NO_PAIRS, compare=False)

    @property
    def is_fleet(self) -> bool:
        """Whether all hosts share one budget as they need it."""
        return self.hosts == FLEET

    @property
    def fixed_hosts(self) -> int:
        """Hosts that get equal parts of each budget; those of a fleet share the whole."""
        return self.hosts if isinstance(self.hosts, int) else 1


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        row.name: Option(name=row.name, default=getattr(Settings(), row.name), **row.metadata)
        for row in fields(Settings)
        if row.metadata
    }
)
