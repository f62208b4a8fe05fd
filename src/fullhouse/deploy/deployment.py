"""What the generated files need to know of a site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fullhouse.plan.plan import ServerPlan

# What the supervisor needs beyond graceful_timeout to end what is left (`supervisor.generations`), twice.
STOP_MARGIN_S = 15


@dataclass(frozen=True)
class Account:
    """Of a database server, without its password. name: the database's. host, port: as the driver sees them."""

    name: str
    user: str
    vendor: str = ""
    host: str = ""
    port: str = ""


@dataclass(frozen=True)
class Deployment:
    """command: the words of `fullhouse serve`. addresses: HOST:PORT or unix:PATH. *_s: as in the settings.

    environment: variables that decide what is served, and how. companions_s: what the processes beside the web workers
    may take to end. files: folders by URL that nginx serves itself: Django's static and media files. observe: the
    address of the live page and of /metrics, if any. static_url: the key of the static files in `files`, if they are
    there. drivers: modules of the databases' drivers. locks: names of files in the folder.

    hosts: as in the settings. workers, requests (at once), servers: of the plan. memory: bytes that it needs. accounts:
    by alias.
    """

    project: str
    user: str
    folder: str
    command: Sequence[str]
    environment: Mapping[str, str]
    addresses: Sequence[str]
    backlog: int
    has_tls: bool
    graceful_timeout_s: int
    companions_s: int
    stop_delay_s: int
    boot_timeout_s: int
    timeout_s: int
    keepalive_s: int
    max_body: int | None
    has_own_worker: bool
    log: str
    files: Mapping[str, str]
    observe: str | None
    static_url: str = ""
    drivers: Sequence[str] = ()
    locks: Sequence[str] = ()
    hosts: int | str = 1
    workers: int = 1
    requests: int = 1
    servers: Sequence[ServerPlan] = ()
    memory: int = 0
    accounts: Mapping[str, Account] = field(default_factory=dict)

    @property
    def stop_s(self) -> int:
        """What a stop may take, until nothing is left to be ended."""
        return max(self.stop_delay_s + self.graceful_timeout_s, self.companions_s) + STOP_MARGIN_S
