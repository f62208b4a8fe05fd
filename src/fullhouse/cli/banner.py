"""The start banner: what was decided and why, in a few lines; colours only on a terminal."""

import os
import shlex
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TextIO

from fullhouse import __version__
from fullhouse.plan.report import server_line
from fullhouse.settings.companions import Companion
from fullhouse.settings.kinds import seen_here
from fullhouse.settings.table import Settings
from fullhouse.site.planned import Planned

BOLD, DIM, GREEN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"


def banner(planned: Planned, addresses: Sequence[str], page: Sequence[str], *, colour: bool) -> str:
    """The banner's text. `addresses` are those really listened on, page that of the live page, if any."""
    plan, settings = planned.plan, planned.settings
    scheme = "https" if settings.certfile else "http"
    rows = [("address", _address(scheme, address)) for address in addresses]
    rows += [_observed(address) for address in page]
    rows.append(
        (
            "requests",
            f"{plan.workers} workers × {plan.threads} threads = {plan.requests} at once ({_why(planned)})",
        )
    )
    if timeouts := _timeouts(settings):
        rows.append(("timeouts", timeouts))
    rows += [("database", server_line(server)) for server in plan.servers]
    if planned.static.said:
        rows.append(("static files", planned.static.said))
    if planned.plan.companions:
        rows.append(("processes", ", ".join(_run(one) for one in planned.plan.companions)))
    rows += [("note", note) for note in plan.notes]
    overrides = [f"{name} from {source}" for name, source in settings.sources.items() if source.isupper()]
    if overrides:
        rows.append(("environment", ", ".join(overrides)))
    if settings.log_file is None:
        rows.append(("stop", f"Ctrl-C (pid {os.getpid()})"))
    else:
        rows += [("log", settings.log_file), ("stop", f"fullhouse stop {planned.project.name} (pid {os.getpid()})")]
    width = max(len(label) for label, _ in rows)
    title = f"fullhouse {__version__} serves {planned.project.name}"
    if not colour:
        return "\n".join([title, *(f"  {label:<{width}}  {text}" for label, text in rows)])
    painted = [
        f"  {DIM}{label:<{width}}{RESET}  {GREEN + text + RESET if label == 'address' else text}"
        for label, text in rows
    ]
    return "\n".join([f"{BOLD}{title}{RESET}", *painted])


def wants_colour(stream: TextIO) -> bool:
    """Colours on a terminal only, and not where NO_COLOR is set (no-color.org) or the terminal is dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _observed(address: str) -> tuple[str, str]:
    """The page is for this machine alone; from elsewhere there is /metrics."""
    address = seen_here(address)
    if address.startswith("unix:") or ip_address(address.rpartition(":")[0].strip("[]")).is_loopback:
        return "live page", _address("http", address)
    return "metrics", _address("http", address) + "metrics"


def _address(scheme: str, address: str) -> str:
    return address if address.startswith("unix:") else f"{scheme}://{address}/"


def _run(companion: Companion) -> str:
    times = f"{companion.count} × " if companion.count > 1 else ""
    return f"{companion.name}: {times}{shlex.join(companion.command)}"


def _timeouts(settings: Settings) -> str:
    """Which requests are ended, and when; empty where none are."""
    limits = [f"{seconds:g} s under {path}" for path, seconds in settings.request_timeouts.items()]
    if settings.request_timeout is not None:
        limits.insert(0, f"{settings.request_timeout:g} s")
    return f"a request gets 503, and its query is cancelled, after {', '.join(limits)}" if limits else ""


def _why(planned: Planned) -> str:
    steps = {step.name: step.why for step in planned.plan.steps}
    return f"workers: {steps['workers']}; threads: {steps['threads'].split(':')[0]}"
