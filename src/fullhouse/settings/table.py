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
    ADDRESSES,
    ALIASES,
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


PLAN, SERVING, OVERLOAD, LOGS, PROCESS = "The plan", "Serving", "Overload", "Logs", "The processes"
NO_PAIRS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Settings:
    """The options in force. Frozen: whoever wants another value makes a new one with `layered`."""

    sizing: str = _option(
        one_of("fit", "recipe"),
        "fit",
        PLAN,
        "fit: one worker per core, threads by what the machine and the database carry. recipe: the classic "
        "2 × cores + 1 workers and (limit - reserve) / connections_per_thread / workers threads.",
    )
    workers: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "Worker processes. Default: planned. WEB_CONCURRENCY sets it too.",
        "workers",
    )
    threads: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "Threads of each worker, so the requests it runs at once. Default: planned.",
        "threads",
    )
    reserve: int | None = _option(
        whole_number(0),
        None,
        PLAN,
        "Sessions of each database server left to others (people, cron jobs, other sites). Default: a tenth of the "
        "limit, 40 at the most, and never fewer than other users hold now. recipe: 40.",
    )
    hosts: int = _option(whole_number(1), 1, PLAN, "Hosts that run this site and share the database's limit equally.")
    budget: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "Database sessions that this host may use, fixed by hand. Default: (limit - reserve) / hosts.",
    )
    connections_per_thread: int = _option(
        whole_number(1),
        2,
        PLAN,
        "What sizing=recipe counts for each thread.",
    )
    max_connections: int | None = _option(
        whole_number(1),
        None,
        PLAN,
        "The database's limit, given instead of asked: nothing connects to it.",
    )
    required: tuple[str, ...] = _option(
        ALIASES,
        ("default",),
        PLAN,
        "Databases without which the site does not start. Any other may be down: the site is planned without it, and "
        "it is asked for its limit with the first connection.",
    )
    cores: float | None = _option(positive_number(), None, PLAN, "Processor cores, given instead of looked up.")
    memory: int | None = _option(MEMORY, None, PLAN, "Memory, given instead of looked up: 512M, 8G, or bytes.")
    open_files: int | None = _option(
        whole_number(64),
        None,
        PLAN,
        "Open-file limit of a process, given instead of looked up.",
    )

    bind: tuple[str, ...] = _option(
        ADDRESSES,
        ("127.0.0.1:8000",),
        SERVING,
        "Where to listen: HOST:PORT or unix:PATH. PORT=8080 in the environment means 0.0.0.0:8080.",
        "bind",
    )
    backlog: int = _option(
        whole_number(1),
        2048,
        SERVING,
        "Connections that may wait in the kernel to be accepted.",
        "backlog",
    )
    certfile: str | None = _option(PATH, None, SERVING, "TLS certificate (PEM); serves HTTPS.", "certfile")
    keyfile: str | None = _option(PATH, None, SERVING, "Private key of the certificate (PEM).", "keyfile")
    timeout: int = _option(
        whole_number(0),
        60,
        SERVING,
        "Seconds without a sign of life after which a worker is replaced; 0: never.",
        "timeout",
    )
    graceful_timeout: int = _option(
        whole_number(1),
        60,
        SERVING,
        "Seconds that running requests get to finish at a stop or reload.",
        "graceful_timeout",
    )
    boot_timeout: int = _option(
        whole_number(1),
        60,
        SERVING,
        "Seconds that a new generation gets until all its workers are ready; then it is discarded.",
    )
    warm_up: str | None = _option(
        URL_PATH,
        None,
        SERVING,
        "Path that every worker must answer (2xx or 3xx) before it counts as ready. Default: none is asked.",
    )
    keepalive: int = _option(
        whole_number(0),
        30,
        SERVING,
        "Seconds an idle client connection is kept; keep it above the idle time of a load balancer in front.",
        "keepalive",
    )
    worker_class: str = _option(
        TEXT,
        "fullhouse.worker.Worker",
        SERVING,
        "The kind of worker: ours, or one of gunicorn's, such as gthread.",
        "worker_class",
    )
    header_timeout: float = _option(
        positive_number(), 20.0, SERVING, "Seconds a client gets to send the headers of a request."
    )
    transfer_timeout: float = _option(
        positive_number(),
        20.0,
        SERVING,
        "Seconds a client may stand still while it sends a body or reads a response.",
    )
    minimum_rate: int = _option(
        whole_number(1), 500, SERVING, "Bytes a second that a body or response must move at, on average."
    )
    body_memory: int = _option(
        MEMORY, 1 << 20, SERVING, "Memory for a request's body; a longer one goes to a temporary file."
    )
    transfer_memory: int | None = _option(
        MEMORY,
        None,
        SERVING,
        "Memory of each worker for requests and responses on their way; beyond it they go to temporary files. Default: "
        "an eighth of the memory for all workers, 64 MiB at the most for each.",
    )
    max_body: int | None = _option(
        MEMORY, 1 << 30, SERVING, "A longer request body is refused with 413, before the client is asked to send it."
    )
    freeze_gc: bool = _option(
        SWITCH, True, SERVING, "Keep the loaded application out of garbage collection, and collect less often."
    )
    probes: bool = _option(
        SWITCH, True, SERVING, "Let the server itself answer the two paths below; off: they go to Django."
    )
    live_path: str = _option(
        URL_PATH, "/-/live", SERVING, "Path that is answered 200 as long as the worker's loop turns."
    )
    ready_path: str = _option(
        URL_PATH, "/-/ready", SERVING, "Path that is answered 200 while requests are welcome, 503 once the site stops."
    )
    stop_delay: int = _option(
        whole_number(0),
        0,
        SERVING,
        "Seconds that a stopping site still takes requests, so that a load balancer sees the 503 of ready_path first.",
    )
    max_requests: int = _option(
        whole_number(0),
        0,
        SERVING,
        "Replace a worker after so many requests, give or take 5 %; 0: never.",
        "max_requests",
    )
    reload: bool = _option(
        SWITCH, False, SERVING, "Reload when code changes, except that of the settings. For development.", "reload"
    )

    queue_limit: int = _option(
        whole_number(1), 1000, OVERLOAD, "Requests that may wait for a thread in each worker; more are answered 503."
    )
    queue_target: float = _option(
        positive_number(),
        0.05,
        OVERLOAD,
        "Seconds of waiting that are no overload yet. A queue that stands longer is one: then the newest request runs "
        "first, and what has waited for twice as long is answered 503.",
    )
    wait_timeout: float = _option(
        positive_number(),
        30.0,
        OVERLOAD,
        "Seconds after which a request that waits is answered 503, counted from X-Request-Start where a proxy sets it.",
    )
    client_share: float = _option(
        share(), 1.0, OVERLOAD, "Share of the queue that one client address may hold; 1: there is no bound."
    )
    critical_paths: tuple[str, ...] = _option(
        URL_PATHS, (), OVERLOAD, "Beginnings of paths whose requests run first and are shed last."
    )
    sheddable_paths: tuple[str, ...] = _option(
        URL_PATHS, (), OVERLOAD, "Beginnings of paths whose requests run last and are shed first."
    )
    priority: str | None = _option(
        TEXT,
        None,
        OVERLOAD,
        "module.function that is given a request (method, path, headers) and returns critical, normal or sheddable, "
        "where no path decides.",
    )
    overload_page: str | None = _option(
        PATH, None, OVERLOAD, "HTML file that is sent with the 503. Default: one line of text."
    )
    request_timeout: float | None = _option(
        positive_number(),
        None,
        OVERLOAD,
        "Seconds after which a request that runs is told with its stack, its query cancelled on the server, and its "
        "client answered 503. Default: never.",
    )
    request_timeouts: Mapping[str, float] = _option(
        TIMES_BY_PATH, NO_PAIRS, OVERLOAD, "The same for requests whose path begins so; the longest beginning counts."
    )
    max_worker_memory: int | None = _option(
        MEMORY, None, OVERLOAD, "Replace a worker that uses more, once its requests are answered. Default: never."
    )

    access_log: str | None = _option(
        PATH,
        None,
        LOGS,
        "File for one line per request; - is the terminal. Default: none.",
        "accesslog",
    )
    error_log: str = _option(PATH, "-", LOGS, "File for the server's own messages; - is the terminal.", "errorlog")
    log_file: str | None = _option(
        PATH,
        None,
        LOGS,
        "File for all that the processes write, rotated at 20 MB with 20 kept; fullhouse start sets it. Default: none.",
    )
    access_log_format: str = _option(
        TEXT,
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        LOGS,
        "Format of an access log line, in gunicorn's atoms.",
        "access_log_format",
    )
    log_level: str = _option(
        one_of("debug", "info", "warning", "error", "critical"),
        "warning",
        LOGS,
        "The least grave messages of the error log.",
        "loglevel",
    )

    process_name: str | None = _option(
        TEXT,
        None,
        PROCESS,
        'Name in ps and top. Default: "fullhouse: PROJECT".',
        "proc_name",
    )
    python_path: tuple[str, ...] = _option(
        FOLDERS,
        (),
        PROCESS,
        "Folders to import from, before all others.",
        "pythonpath",
    )
    env: Mapping[str, str] = _option(
        PAIRS,
        NO_PAIRS,
        PROCESS,
        "Environment variables for the workers. The settings module sees those of the command line and the "
        "environment, not those that it names itself.",
        "raw_env",
    )
    gunicorn: Mapping[str, Any] = _option(
        PAIRS,
        NO_PAIRS,
        PROCESS,
        "Any other setting of gunicorn, by its name; gunicorn checks the value.",
    )

    # Where each value that is not a default came from: {"workers": "WEB_CONCURRENCY"}.
    sources: Mapping[str, str] = field(default_factory=lambda: NO_PAIRS, compare=False)


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        row.name: Option(name=row.name, default=getattr(Settings(), row.name), **row.metadata)
        for row in fields(Settings)
        if row.metadata
    }
)
