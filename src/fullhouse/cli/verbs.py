"""The commands that address a running supervisor by project and port, and `start`, which makes one run."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fullhouse.errors import AlreadyRunningError, ApplicationError, ConfigurationError, FullhouseError
from fullhouse.fleet import report as fleet
from fullhouse.observer.look import Looker
from fullhouse.private_folder import runtime_folder
from fullhouse.supervisor import instances
from fullhouse.supervisor.control import ask
from fullhouse.supervisor.instances import Instance

_POLL_S = 0.05
# A worker looks twice a second whether somebody has asked.
DUMP_PATIENCE_S = 5.0


def log_path(project: str, port: str | None) -> Path:
    """Where `start` lets the processes write: /var/log/fullhouse for root, else the user's state folder (XDG).

    Raises ConfigurationError where the user has no home.
    """
    if os.geteuid() == 0:
        folder = Path("/var/log/fullhouse")
    else:
        try:
            folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fullhouse"
        except RuntimeError as error:
            raise ConfigurationError(
                f"User {os.geteuid()} has no home directory for the log file.\nGive one with --log-file."
            ) from error
    return folder / (f"{project}-{port}.log" if port else f"{project}.log")


def start(project: str, port: str | None, options: Sequence[str]) -> str:
    """Serve the project in the background with these options; return once it serves, with a line to print.

    Raises AlreadyRunningError, or the error of one that failed to start, which has reported why.
    """
    running = [one for one in instances.running(runtime_folder()) if one.facts["project"] == project]
    for one in running:
        if port in (None, one.facts["port"]):
            raise AlreadyRunningError(
                f"{project} is already running on port {one.facts['port']}: pid {one.facts['pid']}."
            )
    bind = [f"--bind=127.0.0.1:{port}"] if port and not any(word.startswith("--bind=") for word in options) else []
    log = [] if _names_log(options) else [f"--log-file={log_path(project, port)}"]
    return _launch(project, ["serve", project, *options, *bind, *log])


def _names_log(options: Sequence[str]) -> bool:
    return any(word.startswith("--log-file=") for word in options)


def _launch(
    project: str, words: Sequence[str], folder: str | None = None, environment: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Start `fullhouse WORDS` in the background, in the folder and with the variables of one that ran before."""
    with tempfile.TemporaryDirectory() as private, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        address = str(Path(private) / "notify")
        notified.bind(address)
        notified.settimeout(_POLL_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "fullhouse", *words],
            env={**os.environ, **environment, "NOTIFY_SOCKET": address},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while not _is_ready(notified):
                if process.poll() is not None:
                    raise _did_not_start(project, process.returncode)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        process.returncode = 0  # it is not our child from now on
        return f"{project} is running in the background (pid {process.pid})."


def _is_ready(notified: socket.socket) -> bool:
    with suppress(TimeoutError):
        return b"READY=1" in notified.recv(4096)
    return False


def _did_not_start(project: str, code: int) -> FullhouseError:
    for kind in FullhouseError.__subclasses__():
        if kind.exit_code == code:
            return kind(f"{project} did not start.")
    return FullhouseError(f"{project} did not start: exit code {code}.")


def stop(project: str, port: str | None) -> str:
    """Drain and end it; return once it is gone. Raises NotRunningError."""
    instance = instances.find(runtime_folder(), project, port)
    ask(instance.control, {"verb": "stop"})
    while instance.runs():
        time.sleep(_POLL_S)
    return f"{project} has stopped."


def restart(project: str, port: str | None) -> str:
    """Stop it and start it in the background, with the words and in the folder of before.

    Raises NotRunningError, or ConfigurationError where that folder is gone: then it goes on running.
    """
    facts = instances.find(runtime_folder(), project, port).facts
    if not os.path.isdir(facts["folder"]):
        raise ConfigurationError(
            f"{project} was started in {facts['folder']}, which no longer exists: stop the server and start it again."
        )
    log = [] if facts["log"] else [f"--log-file={log_path(project, port)}"]
    stop(project, port)
    return _launch(project, [*facts["words"], *log], facts["folder"], facts["environment"])


def reload(project: str, port: str | None) -> str:
    """Replace the code; return once the new one serves. Raises ApplicationError where it does not come up."""
    reply = ask(instances.find(runtime_folder(), project, port).control, {"verb": "reload"})
    if not reply["ok"]:
        raise ApplicationError(f"The reload failed; the old code is still serving.\n{reply['message']}")
    return f"{project} now serves the new code."


def dump(project: str, port: str | None) -> str:
    """What every thread of every worker is at. Raises NotRunningError."""
    workers = ask(instances.find(runtime_folder(), project, port).control, {"verb": "dump"})["workers"]
    deadline = time.monotonic() + DUMP_PATIENCE_S
    return "\n\n".join(f"worker {pid}\n\n{_dumped(Path(path), deadline)}" for pid, path in workers.items())


def _dumped(path: Path, deadline: float) -> str:
    """What the worker writes into the file, which is removed."""
    while not path.exists():
        if time.monotonic() > deadline:
            return (
                f"no answer within {DUMP_PATIENCE_S:g} s: it is gone, or a library holds the interpreter and lets none "
                "of its threads run."
            )
        time.sleep(_POLL_S)
    text = path.read_text()
    path.unlink(missing_ok=True)
    return text


def status(project: str | None, port: str | None, output_format: str, *, with_sessions: bool = False) -> str:
    """What runs, and with_sessions who holds the database sessions of each.

    Raises NotRunningError where a project is named that does not.
    """
    folder = runtime_folder()
    found = [instances.find(folder, project, port)] if project else instances.running(folder)
    reports = [_report(one, with_sessions=with_sessions) for one in found]
    if output_format == "json":
        return json.dumps(reports, indent=2)
    return "\n".join(_as_text(report) for report in reports) or "No server is running."


def _report(instance: Instance, *, with_sessions: bool) -> dict[str, Any]:
    if not with_sessions:
        status = ask(instance.control, {"verb": "status"})["status"]
        return {**instance.facts, **status, "fleets": _fleets(status)}
    with closing(Looker(instance)) as looker:
        look = looker.look()
    budgets = [asdict(one) for one in look.budgets]
    return {**instance.facts, **look.status, "fleets": _fleets(look.status), "budgets": budgets}


def _fleets(status: Mapping[str, Any]) -> dict[str, Any]:
    """The other hosts that share the slots of a file, by its aliases."""
    found = {", ".join(aliases): fleet.read(Path(path)) for path, aliases in status["slot_files"].items()}
    return {aliases: {**asdict(one), "lines": one.lines} for aliases, one in found.items() if one is not None}


def _as_text(report: Mapping[str, Any]) -> str:
    state = "stopping" if report["stopping"] else f"up {_duration(report['uptime_s'])}"
    rate = sum(row["requests_per_s"] for one in report["generations"] for row in one["workers"])
    lines = [f"{report['project']} on {report['port']}: {state}, pid {report['pid']}, {rate:,.1f} requests/s"]
    for one in report["generations"]:
        workers = f"{len(one['workers'])} of {one['planned'] or '?'} workers ready"
        lines.append(f"  generation {one['number']}  {one['state']} for {_duration(one['since_s'])}, {workers}")
        for row in one["workers"]:
            lines += _worker_lines(row)
    lines += [_companion_line(row) for row in report["processes"]]
    for aliases, one in report["fleets"].items():
        lines += [f"  {aliases}: {one['lines'][0]}", *(f"  {line}" for line in one["lines"][1:])]
    for budget in report.get("budgets", ()):
        held = sum(one["slots"] for one in budget["holders"])
        lines.append(f"  {', '.join(budget['aliases'])}: {held} of {budget['slots']} slots")
        lines += [f"    {one['title']} (pid {one['pid']})  {one['slots']}" for one in budget["holders"]]
    if report["crashes"]:
        lines.append(f"  crashes       {report['crashes']} in a row")
    if report["last_failure"]:
        lines.append("  last failure  " + report["last_failure"].replace("\n", "\n                "))
    return "\n".join(lines)


def _worker_lines(row: Mapping[str, Any]) -> list[str]:
    lines = [
        f"    worker {row['pid']}  {row['busy']} of {row['threads']} threads busy, {row['queued']} queued, "
        f"{row['requests']:,} requests, {row['errors']:,} errors, {row['shed']:,} shed"
    ]
    for one in row["databases"]:
        lines.append(
            f"      {one['alias']}: {one['in_use']} of {one['connections']} connections in use, "
            f"{one['waiting']} waiting, {one['slots']} of the host's {one['budget']} slots"
        )
    return lines


def _companion_line(row: Mapping[str, Any]) -> str:
    pid = f", pid {row['pid']}" if row["pid"] else ""
    crashes = f", ended by itself {row['crashes']} × in a row" if row["crashes"] else ""
    return f"  {row['name']} {row['number']}  {row['state']} for {_duration(row['since_s'])}{pid}{crashes}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 86400} d {whole // 3600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def logs(project: str, port: str | None, lines: int, *, follow: bool) -> None:
    """Print the end of the log, and with `follow` all that comes. Raises ConfigurationError where there is none."""
    facts = instances.find(runtime_folder(), project, port).facts
    if facts["log"] is None:
        raise ConfigurationError(f"{project} has no log file: it writes to the terminal it was started from.")
    words = ["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), facts["log"]]
    subprocess.run(words, check=False)
