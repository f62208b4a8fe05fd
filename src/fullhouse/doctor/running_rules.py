"""What a running site shows: it serves another plan than would be made now, sheds, crashes, lacks connections. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from fullhouse.doctor.finding import Finding
from fullhouse.fleet.report import STALE_S, FleetReport
from fullhouse.telemetry.rows import END_REASONS, Row
from fullhouse.telemetry.tally import SHED_REASONS


def of_running(status: Mapping[str, Any], total: Row) -> Iterator[Finding]:
    """status: the supervisor's. total: all rows together."""
    if status["crashes"]:
        yield Finding(
            "E501",
            f"The site has crashed {status['crashes']} times in a row: {status['last_failure'] or 'see the log'}",
            "See fullhouse logs.",
        )
    elif status["last_failure"]:
        yield Finding(
            "W502", f"The last reload failed: {status['last_failure'].partition(chr(10))[0]}", "Mend it, and reload."
        )
    ends = dict(zip(END_REASONS, total.totals.ends, strict=True))
    bad = {reason: ends[reason] for reason in ("timeout", "stuck_request", "crashed") if ends[reason]}
    if bad:
        told = ", ".join(f"{count} × {reason}" for reason, count in bad.items())
        yield Finding(
            "W503", f"Workers have ended that should not have, since the start: {told}.", "See fullhouse logs."
        )
    shed = dict(zip(SHED_REASONS, total.totals.shed, strict=True))
    shed.pop("client_gone")
    if any(shed.values()):
        told = ", ".join(f"{count:,} × {reason}" for reason, count in shed.items() if count)
        yield Finding(
            "W504",
            f"Of {total.totals.requests:,} requests since the start, {sum(shed.values()):,} were not run ({told}).",
            "See fullhouse top for what is full; docs/concepts/overload.md says what can be done.",
        )
    for one in total.databases:
        if one.totals.refused:
            yield Finding(
                "W505",
                f"{one.alias}: {one.totals.refused:,} requests got no connection since the start.",
                "See fullhouse status --database for who holds them, and fullhouse top for slow routes.",
            )


def of_fleet(aliases: str, fleet: FleetReport, pools: int = 1) -> Iterator[Finding]:
    """pools: that this host's workers have on these slots."""
    if fleet.trouble:
        yield Finding(
            "E507", f"{aliases}: the keeper of this host's slots lends none: {fleet.trouble}.", "Mend what it names."
        )
    elif fleet.age_s > STALE_S:
        yield Finding(
            "E507",
            f"{aliases}: the keeper of this host's slots was last heard {fleet.age_s:.0f} s ago, and lends none.",
            "See fullhouse logs; a process that needs a connection starts another one.",
        )
    differ = [f"{one.number} ({one.address})" for one in fleet.hosts if not one.agrees]
    if differ:
        yield Finding(
            "W508",
            f"{aliases}: host {', '.join(differ)} plans with another budget than {fleet.budget}, or another version.",
            "Give all hosts the same limit, reserve and budget.",
        )
    without = [f"{one.number} ({one.address})" for one in fleet.hosts if one.share == 0]
    if without:
        yield Finding(
            "E509",
            f"{aliases}: {len(fleet.hosts)} hosts share {fleet.budget} slots: host {', '.join(without)} can get none.",
            "Run fewer hosts, raise the server's limit, or put a pooler in front (docs/how-to/many-hosts.md).",
        )
    shares = [one.share for one in fleet.hosts if one.is_here and 0 < one.share < pools]
    if shares:
        yield Finding(
            "W510",
            f"{aliases}: this host's share is {shares[0]} slots, and its workers have {pools} pools: they take turns.",
            "Run fewer workers or hosts, or put a pooler in front (fullhouse deploy pgbouncer).",
        )


def of_plan(planned: Mapping[str, int], running: Mapping[str, int]) -> Iterator[Finding]:
    """Both: workers and threads."""
    changed = {
        name: (running[name], planned[name]) for name in planned if running.get(name) not in (None, planned[name])
    }
    if changed:
        told = ", ".join(f"{before} {name} and not {after}" for name, (before, after) in changed.items())
        yield Finding(
            "I506",
            f"The running site has {told}, as a plan made now would: its options or the machine have changed.",
            "fullhouse reload makes the plan anew.",
        )
