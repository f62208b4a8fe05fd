"""Each rule of the doctor: what makes its finding appear, and what makes it go."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fullhouse.doctor import database_rules, machine_rules, proxy_rules, running_rules, settings_rules
from fullhouse.doctor.finding import Finding, as_json, as_text, exit_code
from fullhouse.doctor.machine_rules import Machine
from fullhouse.fleet.report import FleetHost, FleetReport
from fullhouse.plan.limits import Limit
from fullhouse.plan.plan import ServerPlan
from fullhouse.telemetry.rows import Database, DatabaseTotals, Row, Totals

ROOT = Path(__file__).parent.parent.parent
MYSQL = {"ENGINE": "django.db.backends.mysql", "CONN_MAX_AGE": 60}
OURS = {"ENGINE": "fullhouse.db.mysql"}
POOL = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": {"max_size": 4}}}
MACHINE = Machine(4096, 0, 1 << 30, 10 << 30, heartbeats_on_disk=False)
LIMIT = Limit("MySQL", ("default",), 100, (("max_connections", 100),), 5, 5, 28800, pooled=("default",))
CAPPED = (("max_connections", 200), ("MAX_USER_CONNECTIONS of the account", 100))
HOST = FleetHost(0, "10.0.0.1", share=5, held=5, in_use=2, waits=False, is_here=True, agrees=True)
SERVER = ServerPlan(LIMIT, reserve=10, budget=90)
RUNNING: dict[str, Any] = {"crashes": 0, "last_failure": None}
NGINX = """
upstream mysite { server 127.0.0.1:8000; keepalive 32; keepalive_timeout 20s; }
server { client_max_body_size 1g; location / { proxy_pass http://mysite; proxy_read_timeout 2m; } }
"""


def nginx(text: str, **options: Any) -> Iterator[Finding]:
    facts: dict[str, Any] = {"max_body": 1 << 30, "timeout_s": 60.0, "keepalive_s": 30, **options}
    lines = text.replace("{", "{\n").replace(";", ";\n").replace("}", "\n}")
    return proxy_rules.of_nginx(Path("site.conf"), lines, **facts)


def total(**numbers: Any) -> Row:
    return Row(totals=Totals(requests=100, **numbers))


def refused(count: int) -> Row:
    return Row(databases=(Database("default", totals=DatabaseTotals(refused=count)),))


def fleet(*hosts: FleetHost, trouble: str = "") -> FleetReport:
    just_now = time.time() + 3600  # these are made long before they are looked at
    return FleetReport(1, just_now, 10, 10, trouble, hosts=hosts)


# id: findings of what is wrong, and of the same mended.
RULES: dict[str, tuple[Iterator[Finding], Iterator[Finding]]] = {
    "E101": (settings_rules.of_production(True, ["a"]), settings_rules.of_production(False, ["a"])),
    "E102": (settings_rules.of_production(False, []), settings_rules.of_production(False, ["a"])),
    "W103": (settings_rules.of_databases({"default": MYSQL}), settings_rules.of_databases({"default": OURS})),
    "W104": (settings_rules.of_databases({"default": POOL}), settings_rules.of_databases({"default": OURS})),
    "W105": (
        settings_rules.of_databases({"default": MYSQL | {"CONN_MAX_AGE": 0}}),
        settings_rules.of_databases({"default": MYSQL}),
    ),
    "W106": (
        settings_rules.of_static_files("by nobody: STATIC_ROOT is not set. Set it"),
        settings_rules.of_static_files("/static/ from /srv"),
    ),
    "W107": (settings_rules.of_timeouts(90.0, 60), settings_rules.of_timeouts(30.0, 60)),
    "W201": (machine_rules.of_machine(replace(MACHINE, somaxconn=128), 2048), machine_rules.of_machine(MACHINE, 2048)),
    "W202": (
        machine_rules.of_machine(replace(MACHINE, swap_used=1 << 29), 2048),
        machine_rules.of_machine(replace(MACHINE, swap_used=1 << 20), 2048),
    ),
    "W203": (
        machine_rules.of_machine(replace(MACHINE, temporary_room=1 << 20), 2048),
        machine_rules.of_machine(MACHINE, 2048),
    ),
    "I204": (
        machine_rules.of_machine(replace(MACHINE, heartbeats_on_disk=True), 2048),
        machine_rules.of_machine(MACHINE, 2048),
    ),
    "W205": (
        machine_rules.of_limits(1024, 8 << 30, 2, 40, None),
        machine_rules.of_limits(65536, 8 << 30, 2, 40, None),
    ),
    "E206": (
        machine_rules.of_limits(65536, 1 << 30, 16, 40, 100 << 20),
        machine_rules.of_limits(65536, 1 << 30, 8, 40, 100 << 20),
    ),
    "E301": (
        database_rules.of_server(replace(SERVER, limit=replace(LIMIT, others=30)), 1800.0),
        database_rules.of_server(SERVER, 1800.0),
    ),
    "W302": (
        database_rules.of_server(replace(SERVER, limit=replace(LIMIT, ours=95)), 1800.0),
        database_rules.of_server(SERVER, 1800.0),
    ),
    "I303": (
        database_rules.of_server(replace(SERVER, limit=replace(LIMIT, wait_timeout_s=60)), 1800.0),
        database_rules.of_server(SERVER, 1800.0),
    ),
    "W304": (database_rules.of_port("default", "6432", "5432"), database_rules.of_port("default", "5432", "5432")),
    "I305": (
        database_rules.of_server(replace(SERVER, most_hosts=10), 1800.0),
        database_rules.of_server(replace(SERVER, most_hosts=10, limit=replace(LIMIT, parts=CAPPED)), 1800.0),
    ),
    "W401": (nginx(NGINX.replace("1g", "10m")), nginx(NGINX.replace("1g", "0"))),
    "W402": (nginx(NGINX, timeout_s=300.0), nginx(NGINX)),
    "W403": (nginx(NGINX.replace("20s", "1m")), nginx(NGINX)),
    "E501": (
        running_rules.of_running(RUNNING | {"crashes": 3, "last_failure": "exit code 7"}, total()),
        running_rules.of_running(RUNNING, total()),
    ),
    "W502": (
        running_rules.of_running(RUNNING | {"last_failure": "no module x\nand more"}, total()),
        running_rules.of_running(RUNNING, total()),
    ),
    "W503": (
        running_rules.of_running(RUNNING, total(ends=(9, 0, 0, 1, 0, 2))),
        running_rules.of_running(RUNNING, total(ends=(9, 1, 1, 0, 0, 0))),
    ),
    "W504": (
        running_rules.of_running(RUNNING, total(shed=(0, 7, 0, 0, 1))),
        running_rules.of_running(RUNNING, total(shed=(0, 0, 0, 0, 1))),
    ),
    "W505": (running_rules.of_running(RUNNING, refused(3)), running_rules.of_running(RUNNING, refused(0))),
    "I506": (
        running_rules.of_plan({"workers": 2, "threads": 40}, {"workers": 2, "threads": 20}),
        running_rules.of_plan({"workers": 2, "threads": 40}, {"workers": 2, "threads": 40}),
    ),
    "E507": (
        running_rules.of_fleet("default", fleet(HOST, trouble="Galera's nodes do not share GET_LOCK")),
        running_rules.of_fleet("default", fleet(HOST)),
    ),
    "W508": (
        running_rules.of_fleet("default", fleet(HOST, replace(HOST, number=1, agrees=False))),
        running_rules.of_fleet("default", fleet(HOST, replace(HOST, number=1))),
    ),
    "E509": (
        running_rules.of_fleet("default", fleet(HOST, replace(HOST, number=1, share=0))),
        running_rules.of_fleet("default", fleet(HOST, replace(HOST, number=1))),
    ),
    "W510": (
        running_rules.of_fleet("default", fleet(replace(HOST, is_here=True, share=2)), 3),
        running_rules.of_fleet("default", fleet(replace(HOST, is_here=True, share=3)), 3),
    ),
}
# Those of files, processes and Django: tests/integration/test_doctor.py.
ELSEWHERE = {"E001", "E002", "E003", "W108", "W109"}


@pytest.mark.parametrize("number", RULES)
def test_a_finding_appears_and_goes(number: str) -> None:
    wrong, right = RULES[number]
    found = {one.id: one for one in wrong}
    assert number in found
    assert re.search(r"[.)]$|: \S", found[number].fact), found[number]
    assert found[number].remedy.endswith((".", "}"))
    assert number not in {one.id for one in right}


def test_every_finding_is_tested_and_described() -> None:
    modules = [*(ROOT / "src/fullhouse/doctor").glob("*.py"), ROOT / "src/fullhouse/cli/doctor.py"]
    modules.append(ROOT / "src/fullhouse/checks.py")
    used = {number for path in modules for number in re.findall(r'"([EWI]\d{3})"', path.read_text())}
    described = set(re.findall(r"`fullhouse\.([EWI]\d{3})`", (ROOT / "docs/reference/checks.md").read_text()))
    assert used == described == RULES.keys() | ELSEWHERE


def test_a_report_has_the_worst_first_and_a_code_for_scripts() -> None:
    findings = [Finding("I204", "a note.", "Do this."), Finding("E101", "an error.", "Do that.")]
    text = as_text(findings, ["the settings", "this machine"])
    assert text.startswith(
        "error    fullhouse.E101  an error.\n                      Do that.\nnote     fullhouse.I204"
    )
    assert "Looked at the settings, this machine: 1 error, 0 warnings, 1 note." in text
    assert '"severity": "error"' in as_json(findings, [])
    assert (exit_code(findings), exit_code(findings[:1]), exit_code([])) == (1, 0, 0)


def test_nginx_of_other_sites_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "etc/nginx/conf.d"
    folder.mkdir(parents=True)
    (folder / "ours.conf").write_text("proxy_pass http://127.0.0.1:8000; # client_max_body_size 1m;")
    (folder / "other.conf").write_text("proxy_pass http://127.0.0.1:9000; # not 127.0.0.1:8000")
    (found,) = proxy_rules.nginx_files(["127.0.0.1:8000"], tmp_path).items()
    assert found == (folder / "ours.conf", "proxy_pass http://127.0.0.1:8000; ")


def test_this_machine_can_be_looked_at() -> None:
    found = machine_rules.look(None)
    assert found.temporary_room > 0
    assert found.swap_used <= found.swap_total
