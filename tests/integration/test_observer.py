"""The observer: what it shows of a served site, and that whatever becomes of it, no request notices."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from browser import Browser, browser
from private_servers import PrivateServer
from supervised import DEADLINE_S, Load, Site, Supervised, alive, birth, children, wait_until

FLOOD = 200


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def running(site: Site) -> Iterator[Supervised]:
    urls = (site.folder / site.name / "urls.py").read_text()
    site.write("urls", urls.replace('path("slow"', 'path("fails", lambda request: 1 / 0), path("slow"'))
    with site.served("--observe=127.0.0.1:0") as running:
        yield running


def port(running: Supervised) -> int:
    """As the banner tells it."""
    found = re.search(r"live page +http://127\.0\.0\.1:(\d+)/", running.output)
    assert found, running.output
    return int(found[1])


def address_of_this_machine() -> str | None:
    """One that is not loopback, if there is any. Nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


def ask(port: int, path: str, at: str = "127.0.0.1", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    with closing(HTTPConnection(at, port, timeout=DEADLINE_S)) as client:
        client.request("GET", path, headers=headers)
        answer = client.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def state(running: Supervised) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(port(running), "/state.json")[2])
    return found


def sees_requests(running: Supervised) -> bool:
    """Whether the observer answers at all, and has seen some; it hangs up on those that it has no place for."""
    with suppress(OSError, HTTPException):
        return bool(state(running).get("requests"))
    return False


def observer(running: Supervised) -> int:
    """Its pid."""

    def found() -> int:
        for pid in children(running.process.pid):
            with suppress(OSError):
                if "fullhouse: observer [" in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return 0

    return int(wait_until(found, "the observer ran"))


def samples(running: Supervised) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Of `/metrics`: values by name and labels."""
    status, _, text = ask(port(running), "/metrics")
    assert status == 200, text
    families = prometheus(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_the_figures_are_those_of_the_site(running: Supervised) -> None:
    for _ in range(20):
        running.get()
    assert running.status("/nothing") == 404
    assert running.status("/fails") == 500
    found = wait_until(lambda: now if (now := state(running)).get("requests") == 22 else None, "it had seen all")
    assert found["site"] == f"mysite on {running.port}"
    assert [one["worker"] for one in found["workers"]] == [0, 1]
    assert (found["errors"], found["shed"], found["last_failure"]) == (1, 0, None)
    assert {one["route"] for one in found["routes"]} == {"", "/", "/fails"}
    values = samples(running)
    labels = {"http_request_method": "GET", "http_response_status_code": "200", "http_route": "/"}
    name = "http_server_request_duration_seconds_count"
    assert values[name, tuple(sorted(labels.items()))] == 20
    assert values[name, tuple(sorted({**labels, "http_response_status_code": "404", "http_route": ""}.items()))] == 1
    failed = {**labels, "http_response_status_code": "500", "http_route": "/fails"}
    assert values[name, tuple(sorted(failed.items()))] == 1


def test_metrics_come_in_the_format_that_is_asked_for(running: Supervised) -> None:
    running.get()
    wait_until(lambda: ask(port(running), "/metrics")[0] == 200, "it had looked once")
    _, plain, text = ask(port(running), "/metrics")
    assert plain.startswith("text/plain; version=")
    names = {family.name for family in prometheus(text)}
    _, kind, text = ask(port(running), "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics(text)} == names
    promised = {"http_server_request_duration_seconds", "http_server_active_requests", "fullhouse_requests_shed"}
    promised |= {"db_client_connection_count", "db_client_connection_wait_time_seconds", "fullhouse_worker_ends"}
    assert promised <= names


def test_pages_of_other_sites_learn_nothing(running: Supervised) -> None:
    """A browser here that was sent to a name which now points to this machine."""
    assert ask(port(running), "/", Host="evil.example")[0] == 403
    for host in ("localhost", "127.0.0.1:9", "[::1]:9"):
        assert ask(port(running), "/", Host=host)[0] == 200
    assert ask(port(running), "/nothing")[0] == 404


def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_site(site: Site) -> None:
    path = site.folder / "figures.sock"
    with site.served(f"--observe=unix:{path}") as running:
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(path))
            client.sendall(b"GET /state.json HTTP/1.0\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.0 200 OK\r\n")
        running.signal(signal.SIGTERM)
        assert running.process.wait(DEADLINE_S) == 0
        assert not path.exists()


@pytest.mark.parametrize(("address", "said"), [("figures", "observe must be HOST:PORT"), ("unix:", "observe must be")])
def test_what_is_no_address_is_refused(site: Site, address: str, said: str) -> None:
    answer = site.command("serve", "mysite", f"--observe={address}")
    assert answer.returncode == 2
    assert said in answer.stderr


@pytest.mark.parametrize("anywhere", ["0.0.0.0", "[::]"])  # noqa: S104
def test_from_elsewhere_there_are_metrics_and_no_page(site: Site, anywhere: str) -> None:
    other = address_of_this_machine()
    if other is None:
        pytest.skip("this machine has no address beside loopback")
    with site.served(f"--observe={anywhere}:0") as running:
        here = running.output.partition("live page")[2].split()[0]
        number = int(here.rstrip("/").rpartition(":")[2])
        assert here in (f"http://127.0.0.1:{number}/", f"http://[::1]:{number}/")
        wait_until(lambda: ask(number, "/metrics")[0] == 200, "it had looked once")
        assert ask(number, "/")[0] == 200
        assert ask(number, "/metrics", at=other)[0] == 200
        for path in ("/", "/state.json", "/history.json", "/nothing"):
            assert ask(number, path, at=other, Host="localhost")[0] == 403


def test_an_address_in_use_is_told_with_its_option(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = site.command("serve", "mysite", "--bind=127.0.0.1:0", f"--observe=127.0.0.1:{taken.getsockname()[1]}")
    assert answer.returncode == 4
    assert "choose another address with --observe." in answer.stderr


def test_its_death_hang_and_flood_cost_no_request(running: Supervised) -> None:
    with Load(running.port, keep_alive=True) as load:
        first = observer(running)
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: found if (found := observer(running)) != first else 0, "it was started again")
        wait_until(lambda: sees_requests(running), "it saw the site again")
        os.kill(second, signal.SIGSTOP)
        load.wait_more()
        with ExitStack() as flood:
            for _ in range(FLOOD):
                client = flood.enter_context(socket.socket())
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(("127.0.0.1", port(running)))
            load.wait_more()
            running.signal(signal.SIGHUP)
            load.wait_more(100)
            os.kill(second, signal.SIGCONT)
            load.wait_more()
        wait_until(lambda: sees_requests(running), "it answered after the flood")
        load.wait_more()
    assert load.failures == []


def test_it_survives_reloads_and_ends_with_the_site(site: Site) -> None:
    with site.served("--observe=127.0.0.1:0") as running:
        pid = observer(running)
        born = birth(pid)
        wait_until(lambda: [one["number"] for one in state(running).get("generations", ())] == [1], "it saw the site")
        running.signal(signal.SIGHUP)
        wait_until(lambda: [one["number"] for one in state(running)["generations"]] == [2], "the reload was seen")
        assert birth(pid) == born
        wait_until(lambda: json.loads(ask(port(running), "/history.json")[2])["marks"], "the reload was marked")
        running.signal(signal.SIGKILL)
        running.process.wait(DEADLINE_S)
        wait_until(lambda: not alive({pid: born}), "it ended with its supervisor")


def test_no_counter_falls_over_reloads_and_killed_workers(site: Site) -> None:
    with site.served("--observe=127.0.0.1:0") as running, Load(running.port, keep_alive=False) as load:
        wait_until(lambda: ask(port(running), "/metrics")[0] == 200, "it had looked once")
        before: dict[Any, float] = {}

        def look() -> dict[Any, float]:
            now = {
                key: value
                for key, value in samples(running).items()
                if key[0].endswith(("_total", "_count", "_bucket", "_sum")) and not key[0].endswith("connection_count")
            }
            for key, value in before.items():
                assert now.get(key, -1.0) >= value, key
            before.update(now)
            return now

        def ends() -> float:
            return sum(value for (name, _), value in look().items() if name == "fullhouse_worker_ends_total")

        for reload in range(1, 6):
            running.signal(signal.SIGHUP)
            wait_until(lambda wanted=2 * reload: ends() >= wanted, "the old workers' ends were counted")
        for kill in range(1, 4):
            killed = wait_until(lambda: running.workers() if len(running.workers()) == 2 else None, "two workers ran")[
                0
            ]
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda wanted=10 + kill: ends() >= wanted, "the killed worker's end was counted")
        counted = {
            labels[0][1]: value for (name, labels), value in look().items() if name == "fullhouse_worker_ends_total"
        }
        assert (counted["stopped"], counted["crashed"]) == (10, 3)
        answered = len(load.answers)
        total = sum(
            value for (name, _), value in look().items() if name == "http_server_request_duration_seconds_count"
        )
        assert total > answered / 2  # what a killed worker had not written yet is lost


def test_a_worker_that_is_replaced_says_why(site: Site) -> None:
    with site.served("--observe=127.0.0.1:0", "--max-requests=20", workers=1) as running:

        def ends() -> dict[str, int]:
            return dict(state(running).get("worker_ends", {}))

        def replaced() -> bool:
            running.get()
            return ends().get("max_requests", 0) > 0

        wait_until(replaced, "a worker was replaced")
        assert not {name for name, count in ends().items() if count} - {"max_requests"}


def test_slots_are_shown_by_holder(site: Site, server: PrivateServer) -> None:
    site.use_database(server)
    site.make_pages_ask_the_database()
    with site.served("--observe=127.0.0.1:0", "--budget=12") as running:
        running.get()
        found = wait_until(
            lambda: now["budgets"] if (now := state(running)).get("budgets") else None, "slots were seen"
        )
        (budget,) = found
        assert (budget["aliases"], budget["slots"]) == (["default"], 12)
        assert {one["kind"] for one in budget["holders"]} == {"worker"}
        assert {one["title"] for one in budget["holders"]} == {"worker 0", "worker 1"}
        values = samples(running)
        assert values["fullhouse_budget_slots", (("pools", "default"),)] == 12
        text = site.command("status", site.name, str(running.port), "--database").stdout
        assert re.search(r"default: \d+ of 12 slots\n +worker [01] \(pid \d+\)  \d", text), text


def test_a_reload_shows_the_slots_of_both_generations(site: Site, server: PrivateServer) -> None:
    site.use_database(server)
    sleep = {"mysql": "SELECT SLEEP(5)", "postgresql": "SELECT pg_sleep(5)"}[server.vendor]
    asked = f"from django.db import connection\n    connection.cursor().execute({sleep!r})"
    site.write("urls", (site.folder / site.name / "urls.py").read_text().replace("time.sleep(1)", asked))
    with site.served("--observe=127.0.0.1:0", "--budget=12") as running, ThreadPoolExecutor(1) as client:
        answer = client.submit(running.get, "/slow")

        def generations() -> set[int]:
            (budget,) = state(running).get("budgets") or [{"holders": []}]
            assert sum(one["slots"] for one in budget["holders"]) <= 12
            return {one["generation"] for one in budget["holders"]}

        wait_until(lambda: any(row["busy"] for row in state(running).get("workers", ())), "the request ran")
        running.signal(signal.SIGHUP)
        wait_until(lambda: generations() == {1, 2}, "both generations were seen")
        assert answer.result(DEADLINE_S) == "finished"
        wait_until(lambda: generations() == {2}, "the first one was gone")


def test_top_in_a_terminal(site: Site, running: Supervised) -> None:
    """Every second on a screen of its own, until q; then the terminal is what it was."""
    keyboard, terminal = pty.openpty()
    with closing(os.fdopen(keyboard, "r+b", buffering=0)) as person:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        before = termios.tcgetattr(terminal)
        command = [sys.executable, "-m", "fullhouse", "top", site.name, str(running.port)]
        process = subprocess.Popen(
            command, cwd=site.folder, env=site.environment | {"TERM": "xterm"}, stdin=terminal, stdout=terminal
        )
        seen = b""
        while seen.count(b"generation 1 ready") < 2:
            assert process.poll() is None
            seen += person.read(4096)
        person.write(b"q")
        while b"\x1b[?1049l" not in seen:
            seen += person.read(4096)
        assert process.wait(DEADLINE_S) == 0
        assert termios.tcgetattr(terminal) == before
        os.close(terminal)
    first = seen.decode().partition("\x1b[H")[2].partition("\x1b[H")[0]
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", first).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"mysite on {running.port}: up ")


def shown(window: Browser, text: str) -> None:
    wait_until(lambda: text in window.text(), f"the page showed {text!r}: {window.text()}")


def test_the_page_in_a_browser(site: Site, server: PrivateServer, tmp_path: Path) -> None:
    site.use_database(server)
    site.make_pages_ask_the_database()
    with (
        site.served("--observe=127.0.0.1:0", "--budget=12") as running,
        browser(f"http://127.0.0.1:{port(running)}", tmp_path / "profile") as window,
        Load(running.port, keep_alive=True),
    ):
        window.open("/")
        for text in (f"mysite on {running.port}", "generation 1 ready, 2 of 2 workers", "threads busy", "of 12"):
            shown(window, text)
        shown(window, "worker 0, generation 1: ")
        routes = "return document.querySelector('#routes').innerText"
        wait_until(lambda: "/" in window.driver.execute_script(routes).split(), "the route was shown")
        wait_until(lambda: window.driver.find_elements("css selector", "svg path.curve"), "curves were drawn")
        running.signal(signal.SIGHUP)
        shown(window, "generation 2 serves")
        for width in (1280, 360):
            window.driver.set_window_size(width, 800)
            overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert window.driver.execute_script(overflow) == 0
        images = window.driver.find_elements("css selector", "[role=img]")
        assert all(image.get_attribute("aria-label") for image in images)
        assert window.complaints() == []
