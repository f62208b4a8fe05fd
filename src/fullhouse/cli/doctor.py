"""`fullhouse doctor`: looks at a project as it would be served, and at it where it runs."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from fullhouse.doctor import database_rules, machine_rules, proxy_rules, running_rules, settings_rules
from fullhouse.doctor.finding import Finding, as_json, as_text, exit_code
from fullhouse.errors import ConfigurationError, NotRunningError
from fullhouse.observer.look import Looker
from fullhouse.private_folder import runtime_folder
from fullhouse.site.databases import longest_lifetime_s, ports
from fullhouse.site.planned import Planned, plan_for
from fullhouse.supervisor import instances
from fullhouse.supervisor.gunicorn_args import CONFIG_FILE


def doctor(project: str | None, arguments: Namespace) -> tuple[str, int]:
    """The report, and the exit code. Raises what the plan raises: then there is nothing to look at."""
    planned = plan_for(project, arguments)
    nginx = proxy_rules.nginx_files(planned.settings.bind)
    findings = [
        *settings_rules.of_all(planned.project.django, planned.settings, planned.static.said),
        *_of_machine(planned),
        *_of_databases(planned),
        *_of_proxy(planned, nginx),
        *_of_files(planned),
    ]
    looked_at = ["the settings", "this machine", *(server.limit.server for server in planned.plan.servers)]
    looked_at += map(str, nginx)
    for instance in instances.running(runtime_folder()):
        if instance.facts["project"] == planned.project.name:
            with suppress(NotRunningError):
                findings += _of_running(planned, instance)
                looked_at.append(f"{planned.project.name} on {instance.facts['port']}")
    report = as_json if arguments.format == "json" else as_text
    return report(findings, looked_at), exit_code(findings)


def _of_machine(planned: Planned) -> Iterator[Finding]:
    settings, plan = planned.settings, planned.plan
    machine = machine_rules.look(settings.gunicorn.get("worker_tmp_dir"))
    yield from machine_rules.of_machine(machine, settings.backlog)
    yield from machine_rules.of_limits(
        plan.machine.open_files, plan.machine.memory, plan.workers, plan.threads, plan.machine.worker_memory
    )


def _of_databases(planned: Planned) -> Iterator[Finding]:
    for server in planned.plan.servers:
        yield from database_rules.of_server(server, longest_lifetime_s(server.limit))
        for alias, asked, told in ports(server.limit):
            yield from database_rules.of_port(alias, asked, told)


def _of_proxy(planned: Planned, nginx: Mapping[Path, str]) -> Iterator[Finding]:
    settings = planned.settings
    for path, text in nginx.items():
        yield from proxy_rules.of_nginx(
            path,
            text,
            max_body=settings.max_body,
            timeout_s=settings.request_timeout,
            keepalive_s=settings.keepalive,
        )


def _of_files(planned: Planned) -> Iterator[Finding]:
    """What the user has written and nobody reads, and what the plan has noticed."""
    elsewhere = Path(*planned.project.name.split("."), CONFIG_FILE)
    if elsewhere.exists():
        yield Finding(
            "W108",
            f"{elsewhere} is not read: gunicorn reads {CONFIG_FILE} of the folder that it is started in.",
            f"Move it beside manage.py, or delete it; fullhouse plan --from {elsewhere} shows what becomes of it.",
        )
    for note in planned.plan.notes:
        if note.startswith("Importing "):
            yield Finding("W109", note.partition(". ")[0] + ".", note.partition(". ")[2])


def _of_running(planned: Planned, instance: instances.Instance) -> Iterator[Finding]:
    try:
        looker = Looker(instance)
    except (ConfigurationError, OSError):  # of another version, or gone
        return
    with closing(looker):
        look = looker.look()
    yield from running_rules.of_running(look.status, look.total)
    newest = max((row.gauges.generation for row in look.workers), default=0)
    workers = [row for row in look.workers if row.gauges.generation == newest]
    for budget in look.budgets:
        if budget.fleet is not None:
            pools = len(workers) * len(budget.aliases)
            yield from running_rules.of_fleet(", ".join(budget.aliases), budget.fleet, pools)
    if workers:
        running = {"workers": len(workers), "threads": max(row.gauges.threads for row in workers)}
        yield from running_rules.of_plan({"workers": planned.plan.workers, "threads": planned.plan.threads}, running)
