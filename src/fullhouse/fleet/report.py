"""What a keeper knows of its fleet, in a file beside the slot file, for `status`, the metrics, `plan` and `doctor`."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fullhouse.budget.grants import file_of
from fullhouse.fleet.core import fair_share
from fullhouse.fleet.ledger import View

STALE_S = 5.0
"""A report that is older was written by a keeper that has ended, or is stopped."""


@dataclass(frozen=True)
class FleetHost:
    """share: slots that it can always get. held: that it may use now; in_use: with a session on them.

    is_here: the host that reports. agrees: whether it has the same budget as that one.
    """

    number: int
    address: str
    share: int
    held: int
    in_use: int
    waits: bool
    is_here: bool
    agrees: bool


@dataclass(frozen=True)
class FleetReport:
    """pid: of the keeper. at: seconds since 1970, when the server was asked last. trouble: why nothing is lent; empty
    where it is. free: slots of no host. outside: sessions of our user that stand on none.
    """

    pid: int
    at: float
    budget: int
    most_hosts: int
    trouble: str = ""
    free: int = 0
    outside: int = 0
    hosts: Sequence[FleetHost] = ()

    @property
    def age_s(self) -> float:
        return time.time() - self.at

    @property
    def lines(self) -> list[str]:
        """For people: the fleet, and a line for each host."""
        if self.trouble:
            return [f"fleet: {self.trouble}"]
        late = f"; its keeper was last heard {self.age_s:.0f} s ago" if self.age_s > STALE_S else ""
        outside = f", {self.outside} sessions outside of it" if self.outside else ""
        count = f"{len(self.hosts)} of at most {self.most_hosts} hosts"
        lines = [f"fleet: {count}, {self.free} of {self.budget} slots free{outside}{late}"]
        for one in self.hosts:
            here = " (here)" if one.is_here else ""
            more = ", waits for more" if one.waits else ""
            differs = "" if one.agrees else ", plans with another budget"
            lines.append(
                f"  host {one.number} at {one.address}{here}: a share of {one.share}, holds {one.held}, "
                f"{one.in_use} in use{more}{differs}"
            )
        return lines


def of_view(view: View, addresses: Mapping[int, str], budget: int, most_hosts: int) -> FleetReport:
    held = {number: {slot for slot, owner in view.owners.items() if owner == one} for number, one in view.hosts.items()}
    hosts = [
        FleetHost(
            number,
            addresses.get(number, "unknown"),
            fair_share(budget, set(view.hosts), number),
            len(held[number]),
            sum(slot in view.fences for slot in held[number]),
            number in view.waiting or number in view.wanting,
            session == view.me,
            number in view.same,
        )
        for number, session in sorted(view.hosts.items())
    ]
    known = {*view.hosts.values(), *view.fences.values()}
    taken = {*view.owners, *view.fences}
    return FleetReport(
        os.getpid(),
        time.time(),
        budget,
        most_hosts,
        free=max(0, budget - len(taken)),
        outside=len(view.sessions - known),
        hosts=hosts,
    )


def failed(budget: int, most_hosts: int, trouble: str) -> FleetReport:
    """Of a keeper that lends nothing."""
    return FleetReport(os.getpid(), time.time(), budget, most_hosts, trouble)


def path_of(slot_file: Path) -> Path:
    return slot_file.with_name(f"{slot_file.name}.fleet.json")


def write(slot_file: Path, report: FleetReport) -> None:
    """At once, so that a reader sees the old one or the new one."""
    path = path_of(slot_file)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(asdict(report)))
    os.replace(new, path)


def read(slot_file: Path) -> FleetReport | None:
    """None: there is none, since the slots are this host's alone, or no keeper has been there."""
    with suppress(OSError, ValueError, TypeError):
        if not file_of(slot_file).stat().st_size:
            return None
        found = json.loads(path_of(slot_file).read_text())
        return FleetReport(**{**found, "hosts": [FleetHost(**host) for host in found["hosts"]]})
    return None
