"""`fullhouse tune`: how much a running site can serve, and what holds it there. Writes nothing unless told."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from fullhouse.errors import ApplicationError, ConfigurationError
from fullhouse.observer.look import Look, Looker
from fullhouse.private_folder import runtime_folder
from fullhouse.settings.table import OPTIONS
from fullhouse.supervisor import instances
from fullhouse.telemetry.tally import together
from fullhouse.tune.knee import Search, Step, Use, Verdict, told, verdict
from fullhouse.tune.load import Answers, Stream, offer
from fullhouse.worker.processors import allowed, idle_s

STEP_S = 4
# The part of a step that is not counted, since the load and the site have only begun; and how long after it, as a part
# of it, an answer counts.
_SETTLE = 0.25
_PATIENCE = 0.25


def tune(
    project: str, port: str | None, page: Stream, seconds: int, output_format: str, write: Path | None = None
) -> str:
    """Raise an open-loop load of one page until the site is at its knee; the report.

    page: at any rate. seconds: of each step. write: an environment file for the options that follow. Progress goes to
    standard error. Raises NotRunningError, ApplicationError for a page that does not answer, ConfigurationError for an
    address that cannot be asked and a file that cannot be written.
    """
    if seconds < 1 or not page.path.startswith("/"):
        raise ConfigurationError(
            f"--seconds is {seconds} and --path {page.path!r}: give a second or more, and a path that begins with /."
        )
    instance = instances.find(runtime_folder(), project, port)
    if not str(instance.facts["port"]).isdecimal():
        raise ConfigurationError(f"{project} listens on a Unix socket: tune needs a port of this machine to ask.")
    search, uses = Search(), {}
    with closing(Looker(instance)) as looker:
        while (rate := search.next_rate) is not None:
            step, use = _step(looker, int(instance.facts["port"]), replace(page, rate=rate), seconds)
            if not search.steps and step.answered < 0.5 * step.offered:
                raise ApplicationError(
                    f"{page.path} does not answer with a status below 400 at {rate:g} requests a second.\n"
                    "Try it with curl; a site that knows its names needs --host NAME, and one with TLS cannot be tuned."
                )
            search.add(step)
            uses[step.offered] = use
            sys.stderr.write(f"{told([step], 80)[1]}\n")
            sys.stderr.flush()
    knee = search.knee or search.steps[0]
    highest = max(search.steps, key=lambda step: step.offered)
    found = verdict(uses[highest.offered])
    if write is not None:
        write_options(write, found.options)
    if output_format == "json":
        steps = [asdict(step) for step in search.steps]
        return json.dumps({"path": page.path, "knee": asdict(knee), **asdict(found), "steps": steps}, indent=2)
    return "\n".join(_report(page.path, search, knee, found, write))


def write_options(path: Path, options: Mapping[str, int]) -> None:
    """Set the options in an environment file, which systemd and compose read; its other lines stay."""
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        if options:
            variables = {OPTIONS[name].variable: value for name, value in options.items()}
            lines = [line for line in lines if line.partition("=")[0].strip() not in variables]
            lines += [f"{variable}={value}" for variable, value in variables.items()]
            path.write_text("".join(f"{line}\n" for line in lines))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--write {path}: {error}") from None


def _report(path: str, search: Search, knee: Step, found: Verdict, written: Path | None) -> list[str]:
    width = min(110, shutil.get_terminal_size((100, 24)).columns)
    options = ", ".join(f"{name} = {value}" for name, value in found.options.items())
    late = max(step.late_s for step in search.steps)
    return [
        *told(search.steps, width),
        "",
        f"{path} is served {knee.offered:,.0f} times a second before a queue grows; 99 % of them within "
        f"{1000 * knee.p99_s:,.0f} ms.",
        f"What is used up then: {found.saturated}; {found.why}.",
        *([f"Try {options}: written to {written}." if written else f"Try {options}."] if options else []),
        *([f"The load itself was up to {late:.1f} s late: offer it from another machine."] if late > 1 else []),
    ]


def _step(looker: Looker, port: int, stream: Stream, seconds: int) -> tuple[Step, Use]:
    """Offer one rate for so many seconds."""
    before, idle_before, began = looker.look(), idle_s(), time.monotonic()
    (answers,) = offer(port, seconds, stream)
    after, idle_after, ended = looker.look(), idle_s(), time.monotonic()
    idle = (idle_after - idle_before) / (ended - began)
    return _counted(answers, stream.rate), _use(before, after, idle)


def _counted(answers: Answers, rate: float) -> Step:
    """Answered is what was due in the step, and answered soon after its end at the latest: else it waits in a queue."""
    since_s, until_s = _SETTLE * answers.seconds, (1 + _PATIENCE) * answers.seconds
    due = [(at + latency, status) for at, status, latency in answers.found if at >= since_s]
    good = [ended for ended, status in due if 200 <= status < 400 and ended <= until_s]
    p50_s, p99_s = (answers.latency_s(share, since_s, below=400) for share in (0.5, 0.99))
    return Step(rate, rate * len(good) / max(1, len(due)), p50_s, p99_s, answers.late_s)


def _use(before: Look, after: Look, idle: float) -> Use:
    """idle: seconds that all processors together were, in a second."""
    workers, span_s = after.workers, after.clock - before.clock
    served = together(after.total.series.values()).since(together(before.total.series.values()))
    cores = len(allowed()) or 1
    threads = sum(row.gauges.threads for row in workers) or 1
    return Use(
        cpu=(after.total.totals.cpu_ms - before.total.totals.cpu_ms) / 1000 / span_s / max(1, len(workers)),
        idle=min(1.0, idle / cores),
        threads=min(1.0, served.run_s / span_s / threads),
        connection=served.connection_s / served.run_s if served.run_s > 0 else 0.0,
        statements=served.statements_s / served.run_s if served.run_s > 0 else 0.0,
        cores=float(cores),
        workers=len(workers),
        each=max((row.gauges.threads for row in workers), default=1),
    )
