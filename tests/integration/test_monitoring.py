"""The files for Prometheus and Grafana, in front of a real Prometheus that scrapes a served site."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import programs
from private_servers import PrivateServer
from supervised import DEADLINE_S, Load, Site, wait_until
from support import free_port

# What a site with one database shows within seconds, if it is asked for the right names.
ALWAYS = {"Requests by status", "Time to respond", "Where the time goes", "Threads", "Requests that wait"}
ALWAYS |= {"Database sessions by holder", "Memory of the workers", "Requests that were not run", "Ends of workers"}


class Prometheus:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str) -> Any:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)) as client:
            client.request("GET", path)
            answer = json.loads(client.getresponse().read())
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask(f"/api/v1/query?query={quote(expression)}")["result"]
        return found

    def is_up(self) -> bool:
        with suppress(OSError, HTTPException, ValueError):
            return any(target["health"] == "up" for target in self.ask("/api/v1/targets")["activeTargets"])
        return False


@contextmanager
def prometheus(folder: Path, scrape: str, rules: Path) -> Iterator[Prometheus]:
    config, port = folder / "prometheus.yml", free_port()
    text = scrape.replace("scrape_interval: 15s", "scrape_interval: 1s")
    config.write_text(f"global: {{evaluation_interval: 1s}}\nrule_files: [{rules}]\n{text}")
    command = [programs.path("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait(DEADLINE_S)


@pytest.fixture
def files(tmp_path: Path, postgresql_server: PrivateServer) -> tuple[Site, str, Path]:
    """A site, and the folder of its files."""
    site = Site(tmp_path / "site")
    site.use_database(postgresql_server)
    site.make_pages_ask_the_database()
    observe = f"127.0.0.1:{free_port()}"
    folder = tmp_path / "files"
    folder.mkdir()
    for kind in ("prometheus", "grafana"):
        answer = site.command("deploy", kind, site.name, f"--observe={observe}", f"--into={folder}")
        assert answer.returncode == 0, answer.stderr
    return site, observe, folder


def test_prometheus_scrapes_the_site_and_knows_all_that_the_files_ask_for(files: tuple[Site, str, Path]) -> None:
    site, observe, folder = files
    rules = folder / "mysite.rules.yml"
    subprocess.run([programs.path("promtool"), "check", "rules", rules], check=True, timeout=DEADLINE_S)
    dashboard = json.loads((folder / "mysite.json").read_text())
    with (
        site.served(f"--observe={observe}", "--budget=8") as running,
        prometheus(folder, (folder / "mysite.scrape.yml").read_text(), rules) as found,
        Load(running.port, keep_alive=True),
    ):
        wait_until(found.is_up, f"it scraped the site: {(folder / 'prometheus.log').read_text()}")
        wait_until(lambda: found.query("rate(http_server_request_duration_seconds_count[1m]) > 0"), "rates were known")
        panels = {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard["panels"]}
        answers = {title: [found.query(expression) for expression in asked] for title, asked in panels.items()}
        assert answers.keys() >= ALWAYS
        assert [title for title in ALWAYS if not all(answers[title])] == []
        loaded = wait_until(lambda: found.ask("/api/v1/rules")["groups"], "the rules were loaded")[0]["rules"]
        evaluated = wait_until(
            lambda: all(rule["health"] == "ok" for rule in found.ask("/api/v1/rules")["groups"][0]["rules"]),
            "all rules were evaluated",
        )
        assert evaluated
        assert {rule["name"] for rule in loaded} >= {"FullhouseDown", "FullhouseErrors", "FullhouseBudgetUsedUp"}
        assert found.query("up{job='mysite'}")[0]["value"][1] == "1"


def test_metrics_without_an_address_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    for options in ((), ("--observe=unix:/tmp/x",), ("--observe=127.0.0.1:0",)):
        answer = site.command("deploy", "prometheus", site.name, *options)
        assert answer.returncode == 2
        assert "Set it to 127.0.0.1:PORT, or to an address that Prometheus reaches." in answer.stderr


def test_promtool_finds_nothing_to_say_about_the_metrics(files: tuple[Site, str, Path]) -> None:
    site, observe, _ = files
    with site.served(f"--observe={observe}") as running:
        running.get()

        def metrics() -> bytes | None:
            with closing(HTTPConnection(observe, timeout=DEADLINE_S)) as client:
                client.request("GET", "/metrics")
                answer = client.getresponse()
                return answer.read() if answer.status == 200 else None

        text = wait_until(metrics, "it had looked once")
    words = [programs.path("promtool"), "check", "metrics"]
    said = subprocess.run(words, input=text, capture_output=True, timeout=DEADLINE_S, check=False)
    assert (said.returncode, said.stderr.decode()) == (0, "")


def test_gunicorns_statsd_names_are_sent(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.setblocking(False)
        host, port = statsd.getsockname()
        options = {"gunicorn": {"statsd_host": f"{host}:{port}", "statsd_prefix": "mysite"}, "log_level": "info"}
        site.append("settings", f"FULLHOUSE = {options!r}\n")
        names: set[str] = set()

        def seen() -> set[str]:
            with suppress(BlockingIOError):
                while True:
                    names.add(statsd.recv(4096).decode().partition(":")[0].removeprefix("mysite."))
            return names

        with site.served(workers=1) as running:
            running.get()
            wanted = {f"gunicorn.{name}" for name in ("requests", "request.duration", "request.status.200", "workers")}
            wait_until(lambda: wanted <= seen(), f"gunicorn's names were sent: {names}")
