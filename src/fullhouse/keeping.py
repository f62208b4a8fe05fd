"""The keeper of a host's slots, in a process of its own, which `db.keepers` starts.

It owns one session on the database server, from the reserve, and ends some seconds after the last process of the host
that has a pool.
"""

import json
import sys
import time
from contextlib import suppress
from typing import Any

from django.db import connections
from setproctitle import setproctitle

from fullhouse.db.driver import CONNECT_TIMEOUT_S
from fullhouse.db.host_slots import options_in_force, path_of, plan_over
from fullhouse.db.pool_settings import unpooled_settings
from fullhouse.errors import FullhouseError, described
from fullhouse.fleet import mysql, postgresql, report
from fullhouse.fleet.host import Host
from fullhouse.fleet.keeper import COLLECT_EVERY_S, Keeper, LostError
from fullhouse.fleet.ledger import Ledger, View

# An application loads for so long before its first worker needs a slot. After the last one, the next may come soon.
UNUSED_S, LEFT_S = 10.0, 2.0
REPORT_EVERY_S = 1.0
# After a failed join, and where something is in the way that only a person removes.
RETRY_S = 0.5
REFUSED_S = 5.0
_READ_TIMEOUT_S = 5


class Keeping:
    """Keeps the slots of one alias's user for as long as a process of this host has a pool on them."""

    def __init__(self, alias: str) -> None:
        self._wrapper: Any = connections[alias]
        self._user = str(self._wrapper.settings_dict["USER"])
        self._path = path_of(self._wrapper.vendor, self._wrapper.settings_dict)
        self._host = Host(self._path)
        self._used_at, self._unused_s = time.monotonic(), UNUSED_S
        self._reported_at = 0.0
        self._said = ""

    def run(self) -> None:
        if not self._host.grants.try_to_keep():
            return
        self._host.withhold(range(self._host.budget))
        while self._is_used():
            ledger, rest_s = None, RETRY_S
            try:
                ledger = self._connect()
                keeper = Keeper(ledger, self._host)
                self._say(f"this host is number {keeper.number} of its fleet")
                while self._is_used():
                    self._tick(keeper, ledger)
                return
            except LostError as error:
                rest_s = 0.0
                self._trouble(f"{error}; it joins anew")
            except FullhouseError as error:
                rest_s = REFUSED_S
                self._trouble(str(error))
            except Exception as error:  # the driver's
                self._trouble(described(error))
            finally:
                self._host.withdraw_all()
                if ledger is not None:
                    ledger.close()
            time.sleep(rest_s)

    def _tick(self, keeper: Keeper, ledger: Ledger) -> None:
        began = time.monotonic()
        view, decision = keeper.tick()
        if began - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = began
            self._report(view, ledger, keeper)
        until = began + keeper.tick_s(view)
        collected = 0
        while (left_s := until - time.monotonic()) > 0:
            if collected < decision.excess:
                collected += keeper.collect(view, decision.excess - collected)
            time.sleep(min(left_s, COLLECT_EVERY_S if collected < decision.excess else left_s))

    def _connect(self) -> Ledger:
        wrapper = type(self._wrapper)(unpooled_settings(self._wrapper.settings_dict), self._wrapper.alias)
        options = wrapper.settings_dict["OPTIONS"]
        options.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
        if wrapper.vendor == "postgresql":
            options["options"] = f"{postgresql.KEEPER_OPTIONS} {options.get('options', '')}".strip()
            options.setdefault("tcp_user_timeout", 1000 * _READ_TIMEOUT_S)
        else:
            options.setdefault("read_timeout", _READ_TIMEOUT_S)
        try:
            wrapper.ensure_connection()
            if self._host.budget == 0:
                planned = plan_over(wrapper, options_in_force())
                self._host.plan(planned.budget, planned.most_hosts or 1)
        except Exception as error:
            wrapper.close()
            if "unsupported startup parameter" in str(error):
                raise postgresql.behind_pooler(described(error)) from error
            raise
        connection = wrapper.let_go()
        connection.borrower = wrapper
        wrapper.internal = 1  # none of the pool's rules
        if wrapper.vendor == "postgresql":
            return postgresql.PostgreSQLLedger(connection, connection.info.backend_pid, self._user)
        return mysql.MySQLLedger(connection, self._user)

    def _is_used(self) -> bool:
        now = time.monotonic()
        if self._host.is_used():
            self._used_at, self._unused_s = now, LEFT_S
        return now - self._used_at < self._unused_s

    def _report(self, view: View, ledger: Ledger, keeper: Keeper) -> None:
        terms = self._host.grants.terms
        found = report.of_view(view, ledger.addresses(view), keeper.budget, terms.most_hosts)
        self._write(found)
        differ = [one for one in found.hosts if not one.agrees]
        if differ:
            names = ", ".join(f"{one.number} ({one.address})" for one in differ)
            self._say(
                f"host {names} plans with another budget than {keeper.budget}, or another version of fullhouse: give "
                "all hosts the same reserve and budget"
            )

    def _trouble(self, text: str) -> None:
        self._say(f"{text}. Until then no new connection is opened")
        terms = self._host.grants.terms
        self._write(report.failed(self._host.budget, terms.most_hosts, text))

    def _write(self, found: report.FleetReport) -> None:
        """A full disk costs the report, and no slot."""
        with suppress(OSError):
            report.write(self._path, found)

    def _say(self, text: str) -> None:
        """To the log of who has started it, once in a row."""
        if text != self._said:
            self._said = text
            with suppress(OSError, ValueError):
                sys.stderr.write(f"fullhouse: keeper of {self._user}: {text}.\n")
                sys.stderr.flush()


def main(alias: str) -> None:
    setproctitle(f"fullhouse: keeper [{alias}]")
    Keeping(alias).run()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
