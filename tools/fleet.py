"""Proves the fleet on real hosts: containers with addresses of their own, one database server, load, and chaos.

    python tools/fleet.py [--seconds 60] [--engines postgresql,mariadb,mysql]

Each host is a container that sees this machine's programs and nothing else of it, and serves a site by `fullhouse
serve --hosts fleet`. Meanwhile hosts come and go, are killed, stopped and cut off, their keepers and workers die, and
the server restarts. The server's own count of sessions is sampled every 5 ms. The exit code says whether it ever
exceeded the budget and a keeper for each host, and whether a request of a host in order failed.

Needs podman, root and iptables. What it makes it removes, by its own names.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random

import containers
import fleet_sampler
import mysql_from_sid
import private_servers
import programs
import server_guard

IMAGE = "localhost/fullhouse-here"
REPOSITORY = Path(__file__).resolve().parent.parent
BUDGET, KEEPERS = 20, 12
CLIENTS = 10  # of each host: more than its share
PAGE_S = 0.1  # that each request is in the database
PORT = 8000
DEADLINE_S = 60.0
SETTINGS = """
SECRET_KEY, ALLOWED_HOSTS = "throw-away", ["*"]
ROOT_URLCONF, WSGI_APPLICATION = "mysite.urls", "mysite.wsgi.application"
DATABASES = {{"default": {database}}}
"""
URLS = """
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def page(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT {sleep}({seconds})")
    return HttpResponse("ok")

urlpatterns = [path("", page)]
"""
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"


def make_image() -> None:
    """A file system with places for this machine's programs to be mounted at, and no more."""
    with tempfile.TemporaryDirectory() as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        for name in ("usr", "etc", "tmp", "run", "proc", "sys", "dev", "var"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                (root / name).symlink_to(f"usr/{name}")
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            (root / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
        with tarfile.open(archive, "w") as tar:
            tar.add(root, "/")
        containers._podman(["image", "rm", "--force", IMAGE])
        containers._output(["import", "--change", f"ENV PATH={containers.SYSTEM_PATH}", str(archive), IMAGE])


class Host:
    """A container that serves the site; `with` it. All that it prints is in its log."""

    def __init__(self, number: int, site: Path) -> None:
        self.number, self._site = number, site
        self.name = f"fullhouse-fleet-{os.getpid()}-{number}"
        self.address = ""
        self.in_order_since = float("inf")

    def start(self) -> None:
        mounts = {Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), REPOSITORY, self._site}
        volumes = [f"--volume={place}:{place}:ro" for place in sorted(mounts)]
        words = [sys.executable, "-m", "fullhouse", "serve", "mysite", f"--bind=0.0.0.0:{PORT}", "--workers=2"]
        words += ["--threads=16", "--hosts=fleet", f"--budget={BUDGET}"]
        ours = [f"--name={self.name}", f"--label={containers.LABEL}={os.getpid()}", *containers.limits(), *volumes]
        place = [f"--workdir={self._site}", f"--env=PYTHONPATH={REPOSITORY / 'src'}"]
        containers._output(["run", "--detach", "--init", *ours, *place, IMAGE, *words])
        found = json.loads(containers._output(["inspect", self.name]))[0]["NetworkSettings"]
        self.address = found["IPAddress"] or next(iter(found["Networks"].values()))["IPAddress"]

    def wait_ready(self) -> None:
        wait_until(lambda: self.answers("/-/ready"), f"host {self.number} was ready", self.log)
        self.in_order_since = time.monotonic()

    def answers(self, path: str) -> bool:
        with contextlib.suppress(OSError, HTTPException):
            client = HTTPConnection(self.address, PORT, timeout=2)
            try:
                client.request("GET", path)
                return client.getresponse().status == 200
            finally:
                client.close()
        return False

    def keeps(self) -> bool:
        """Whether its keeper hears its server."""
        said = containers._podman(["exec", self.name, "sh", "-c", "cat /run/fullhouse/*.fleet.json"]).stdout
        found = json.loads(said or "{}")
        return bool(found.get("hosts")) and time.time() - found["at"] < 2

    @property
    def log(self) -> str:
        return containers._podman(["logs", self.name]).stderr[-3000:]

    @property
    def errors(self) -> Counter[str]:
        """The last lines of its tracebacks."""
        lines = containers._podman(["logs", self.name]).stderr.splitlines()
        return Counter(line[:200] for line in lines if re.match(r"[\w.]+(Error|Exhausted|Down|Refused)\b", line))

    def processes(self, title: str) -> list[int]:
        """Of this container, by their titles; as this machine numbers them."""
        listed = containers._output(["top", self.name, "hpid", "args"]).splitlines()[1:]
        return [int(line.split()[0]) for line in listed if line.split(maxsplit=1)[1].startswith(title)]

    def podman(self, *words: str) -> None:
        containers._output([*words, self.name])

    def cut(self, *, off: bool) -> None:
        for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
            command = [programs.path("iptables"), "-w", "-I" if off else "-D", chain, side, self.address, "-j", "DROP"]
            subprocess.run(command, check=True, timeout=DEADLINE_S)

    def remove(self) -> None:
        containers._podman(["rm", "--force", "--time=0", self.name])


class Load:
    """Clients of every host, each with one connection, as fast as they are answered."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self.idle: set[int] = set()  # hosts that nobody asks
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, host: Host) -> None:
        for _ in range(CLIENTS):
            thread = threading.Thread(target=self._run, args=(host,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self, host: Host) -> None:
        client: HTTPConnection | None = None
        while not self._done.is_set():
            if host.number in self.idle or host.in_order_since == float("inf"):
                self._done.wait(0.05)
                continue
            began = time.monotonic()
            is_reused = client is not None
            try:
                client = client or HTTPConnection(host.address, PORT, timeout=15)
                client.request("GET", "/")
                answer = client.getresponse()
                body = answer.read()
                said = f"{answer.status} {body[:120]!r}" if answer.status != 200 else ""
                status = str(answer.status)
            except (OSError, HTTPException) as error:
                client, status, said = None, type(error).__name__, repr(error)
                if is_reused and time.monotonic() - began < 1:  # closed meanwhile: every client tries anew
                    continue
            was_in_order = host.in_order_since <= began
            self.statuses[status if was_in_order else f"{status} of a host in trouble"] += 1
            if said and was_in_order and host.in_order_since != float("inf"):
                self.failures.append(f"{time.strftime('%X')} host {host.number}: {said}")
            if said:
                self._done.wait(0.2)

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(20)


class Chaos:
    """What happens to the fleet, in an order that the seed decides."""

    def __init__(self, server: private_servers.PrivateServer, site: Path, samples: fleet_sampler.Samples) -> None:
        self._server, self._site, self._samples = server, site, samples
        self._numbers = itertools.count()
        self.hosts: list[Host] = []
        self.gone: list[Host] = []
        self.load = Load()
        self.times: dict[str, list[float]] = {}

    def add(self) -> Host:
        host = Host(next(self._numbers), self._site)
        self.hosts.append(host)
        self._samples.hosts += 1
        host.start()
        host.wait_ready()
        self.load.ask(host)
        return host

    def scale(self, hosts: int) -> None:
        while len(self.hosts) < hosts:
            self.add()
        while len(self.hosts) > hosts:
            self.take_away(self.hosts[0], "stop")

    def take_away(self, host: Host, how: str) -> None:
        host.in_order_since = float("inf")
        self.hosts.remove(host)
        self.gone.append(host)
        host.podman(how, *(["--time=20"] if how == "stop" else []))
        self._samples.hosts -= 1

    def run(self, seconds: float, chance: Random) -> None:
        self.scale(2)
        self.scale(6)
        time.sleep(3)
        until = time.monotonic() + seconds
        faults = [self.shift, self.kill_worker, self.kill_keeper, self.cut, self.kill_host, self.pause, self.roll]
        faults += [self.restart_server, self.blink]
        for fault in itertools.cycle(faults):
            if time.monotonic() > until:
                break
            say(f"{fault.__name__}")
            fault(chance)
            time.sleep(3)
        self.scale(3)
        time.sleep(3)

    def shift(self, chance: Random) -> None:
        """One host's clients fall asleep: its share is in use elsewhere."""
        host = chance.choice(self.hosts)
        self.load.idle.add(host.number)
        self._until_elsewhere(host, "an idle host's share elsewhere")
        time.sleep(2)
        self.load.idle.discard(host.number)

    def kill_worker(self, chance: Random) -> None:
        host = self._trouble(chance)
        os.kill(chance.choice(host.processes("gunicorn: worker")), 9)
        self._recover(host)

    def kill_keeper(self, chance: Random) -> None:
        for pid in chance.choice(self.hosts).processes("fullhouse: keeper"):
            os.kill(pid, 9)

    def kill_host(self, chance: Random) -> None:
        host = chance.choice(self.hosts)
        self.take_away(host, "kill")
        self._until_elsewhere(host, "a killed host's share elsewhere")
        self.add()

    def pause(self, chance: Random) -> None:
        host = self._trouble(chance)
        host.podman("pause")
        time.sleep(chance.choice((3, 12, 60)))
        host.podman("unpause")
        self._recover(host)

    def cut(self, chance: Random) -> None:
        host = self._trouble(chance)
        host.cut(off=True)
        try:
            self._until_elsewhere(host, "a cut-off host's share elsewhere")
            time.sleep(2)
        finally:
            host.cut(off=False)
        self._recover(host)

    def blink(self, chance: Random) -> None:
        host = self._trouble(chance)
        host.cut(off=True)
        time.sleep(chance.random() * 4)
        host.cut(off=False)
        self._recover(host)

    def roll(self, _chance: Random) -> None:
        """Replace every host, with one more than before in between."""
        for host in list(self.hosts)[:3]:
            self.add()
            self.take_away(host, "stop")

    def restart_server(self, _chance: Random) -> None:
        for host in self.hosts:
            host.in_order_since = float("inf")
        self._server.restart()
        for host in self.hosts:
            self._recover(host)

    def _trouble(self, chance: Random) -> Host:
        host = chance.choice(self.hosts)
        host.in_order_since = float("inf")
        return host

    def _recover(self, host: Host) -> None:
        wait_until(lambda: host.keeps() and host.answers("/"), f"host {host.number} was in order again", host.log)
        host.in_order_since = time.monotonic()

    def _until_elsewhere(self, host: Host, what: str) -> None:
        """The time until the other hosts have all slots, by the server's count of sessions."""
        began = time.monotonic()
        while time.monotonic() - began < 30:
            others = {one.address for one in self.hosts if one is not host}
            pooled = sum(self._samples.sessions.get(address, 0) - 1 for address in others)
            if pooled >= BUDGET - 1:  # a session may be on its way from one host to another
                break
            time.sleep(0.02)
        self.times.setdefault(what, []).append(time.monotonic() - began)


def wait_until(is_so: Callable[[], bool], what: str, log: object) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {DEADLINE_S:g} s: {what}\n{log}")
        time.sleep(0.1)


def say(text: str) -> None:
    print(f"  {time.strftime('%X')} {text}", flush=True)


def write_site(folder: Path, server: private_servers.PrivateServer, address: str) -> None:
    database = {
        "ENGINE": f"fullhouse.db.{server.vendor}",
        "HOST": address,
        "PORT": server.port,
        "NAME": server.database,
    }
    database |= {"USER": server.user, "PASSWORD": server.password}
    (folder / "mysite").mkdir()
    for name, text in {
        "__init__": "",
        "settings": SETTINGS.format(database=database),
        "urls": URLS.format(sleep="SLEEP" if server.vendor == "mysql" else "pg_sleep", seconds=PAGE_S),
        "wsgi": WSGI,
    }.items():
        (folder / "mysite" / f"{name}.py").write_text(text)


@contextlib.contextmanager
def database(engine: str, folder: Path) -> Iterator[private_servers.PrivateServer]:
    """A server that containers reach."""
    if engine == "postgresql":
        hba = folder / "hba"
        hba.write_text("local all all scram-sha-256\nhost all all 0.0.0.0/0 scram-sha-256\n")
        folder.chmod(0o755)
        options: dict[str, str | int] = {"listen_addresses": "*", "hba_file": str(hba)}
    else:
        options = {"bind_address": "0.0.0.0"}  # noqa: S104 - of this machine, as long as the proof takes
    with getattr(private_servers, engine)(max_connections=100, **options) as server:
        yield server


def prove(engine: str, seconds: float, seed: int) -> bool:
    print(f"{engine}: a budget of {BUDGET}, {seconds:g} s of chaos, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fullhouse-fleet-") as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        server = stack.enter_context(database(engine, folder))
        gateway = json.loads(containers._output(["network", "inspect", "podman"]))[0]["subnets"][0]["gateway"]
        (folder / "site").mkdir()
        write_site(folder / "site", server, gateway)
        samples = stack.enter_context(fleet_sampler.Samples(server))
        chaos = Chaos(server, folder / "site", samples)
        try:
            chaos.run(seconds, Random(seed))  # noqa: S311 - events that can be had again
        finally:
            chaos.load.stop()
            for host in [*chaos.hosts, *chaos.gone]:
                if any(f"host {host.number}:" in failure for failure in chaos.load.failures):
                    print(f"  the errors of host {host.number}: {dict(host.errors.most_common(5))}")
                host.remove()
    return report(chaos, samples)


def report(chaos: Chaos, samples: fleet_sampler.Samples) -> bool:
    print(f"  {samples.count:,} samples, one every {1000 * samples.every_s:.1f} ms")
    print(f"  sessions: at most {samples.most}; beyond one for each host: {samples.most_pooled} of {BUDGET}")
    for what, found in chaos.times.items():
        print(f"  {what}: {', '.join(f'{one:.1f}' for one in found)} s")
    print(f"  answers: {dict(chaos.load.statuses.most_common())}")
    for failure in chaos.load.failures[:10]:
        print(f"  failed: {failure}")
    return samples.most_pooled <= BUDGET and not chaos.load.failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Prove that the hosts of a fleet never exceed their budget together.")
    parser.add_argument("--seconds", type=float, default=90, help="of chaos for each engine (default: 90)")
    parser.add_argument("--engines", default="postgresql,mariadb,mysql", help="(default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of events (default: 1)")
    arguments = parser.parse_args()
    for signum in private_servers.PASSED_ON:
        signal.signal(signum, server_guard.exit_by_signal)
    containers.install_programs()
    containers.remove_orphans()
    make_image()
    engines = arguments.engines.split(",")
    with mysql_from_sid.on_path() if "mysql" in engines else contextlib.nullcontext():
        proofs = [prove(engine, arguments.seconds, arguments.seed) for engine in engines]
    return 0 if all(proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
