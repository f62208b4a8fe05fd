"""One pool's way to its database driver, through Django's own backend.

A session is opened by an unpooled wrapper of the alias's own class, with all that Django and its subclasses set up
(parameters, character set, isolation level, time zone, role) and the `connection_created` signal, and then taken from
it. So a pooled connection is what the site's engine would have made, and no statement is owed when it is lent.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections

from fullhouse.db.closing import Wire, close_all
from fullhouse.db.contracts import Backend, SlotTakenError
from fullhouse.db.guard import Upkeep, borrowed
from fullhouse.db.host_slots import HostSlots
from fullhouse.db.pool_settings import unpooled_settings

# Where OPTIONS say nothing: both drivers would wait longer, or for ever, for a server that does not answer, and each
# attempt that hangs holds a slot.
CONNECT_TIMEOUT_S = 5

# How long the end of a session is waited for in a fleet, whose ledger shows it as well. After a cut, the network may
# take seconds to carry the goodbye, and the slot would wait as long.
LEDGER_PATIENCE_S = 0.5

# How long a packet may remain without an answer: longer than a failover of a network takes, shorter than patience.
SILENCE_S = 15.0

# The kernel asks so often whether the other end of a silent connection is still there, where the driver has it ask at
# all, as both do unless OPTIONS say otherwise. It takes an answer that there is no such connection at once.
PROBE_S = 5
UNSET_KEEPIDLE_S = 7200  # tcp(7)

# Connections of a parent process that are still wired to its server: collecting one would say goodbye for the parent.
_abandoned: list[Any] = []


def notice_silence(descriptor: int) -> None:
    """Have the kernel end a TCP connection whose other end answers no packet, as after a firewall has dropped it.

    It would try again for a quarter of an hour, and a thread that waits for an answer would wait for two hours. What
    OPTIONS or the system set already is left alone.
    """
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_USER_TIMEOUT"):
            return
        if not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SILENCE_S))
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == UNSET_KEEPIDLE_S:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)


class DjangoDriver:
    """Opens, checks, resets and closes the driver connections of one alias. Called from the pool's threads only."""

    def __init__(self, wrapper: Backend, slots: HostSlots) -> None:
        self._wrapper_class = type(wrapper)
        # A copy, since a test runner changes NAME in place; the pool of another NAME is another pool.
        # Autocommit is on between borrowers, whatever the alias says: nothing that the pool asks opens a transaction.
        self._settings = {**unpooled_settings(wrapper.settings_dict), "AUTOCOMMIT": True}
        self._settings["OPTIONS"].setdefault("connect_timeout", CONNECT_TIMEOUT_S)
        self._alias = wrapper.alias
        self._slots = slots
        self._wires: dict[int, Wire] = {}  # by id of the connection; mysqlclient does not say it while one is used

    @contextmanager
    def _unpooled(self) -> Iterator[Any]:
        """An unpooled wrapper, which stands for the alias in this thread as long as the block takes.

        So receivers of `connection_created`, and what else runs while a session is opened or reset, use this session.
        What they open of other aliases is closed: nothing would end it in a thread of the pool.
        """
        wrapper: Any = self._wrapper_class({**self._settings}, self._alias)
        before = {made.alias: made for made in connections.all(initialized_only=True)}
        connections[self._alias] = wrapper
        try:
            yield wrapper
        except BaseException:
            self._close_half_made(wrapper)
            raise
        finally:
            for made in connections.all(initialized_only=True):
                if made.alias not in before and made is not wrapper:
                    made.close()
                    del connections[made.alias]
            del connections[self._alias]
            if self._alias in before:
                connections[self._alias] = before[self._alias]

    def connect(self, slot: int) -> Any:
        with self._unpooled() as opener:
            if self._slots.is_fleet:
                self._fence(opener, slot)
            try:
                opener.ensure_connection()
            except SlotTakenError:
                self._slots.revoke(slot)
                raise
            if self._slots.unplanned:
                self._slots.plan_by(opener)
            opener.opened()
            connection = opener.let_go()
        descriptor = self._wrapper_class.descriptor(connection)
        self._wires[id(connection)] = Wire.of(descriptor)
        notice_silence(descriptor)
        return connection

    def _fence(self, opener: Any, slot: int) -> None:
        """Have the session take the lock of its slot first."""
        from fullhouse.db.fences import Fence

        opener.fence = Fence(opener.vendor, str(self._settings["USER"]), slot)
        opener.settings_dict["OPTIONS"] = opener.fence.options(opener.settings_dict["OPTIONS"])

    def _close_half_made(self, wrapper: Backend) -> None:
        """Where a session was opened and could not be set up, it ends before its slot is released."""
        wire = None
        if wrapper.connection is not None:
            with suppress(Exception):
                wire = Wire.of(self._wrapper_class.descriptor(wrapper.connection))
        self._close_all([(wire, wrapper.close)])

    def lifetime_limit_s(self, connection: Any) -> float | None:
        if connection.fence is not None:
            return connection.fence.idle_limit_s  # type: ignore[no-any-return]
        with borrowed(connection, Upkeep()), suppress(Exception):
            return self._wrapper_class.idle_limit_s(connection)
        return None

    def close(self, connections: Sequence[Any]) -> list[bool]:
        return self._close_all([(self._wires.pop(id(one), None), one.close) for one in connections])

    def _close_all(self, sessions: Sequence[tuple[Wire | None, Callable[[], object]]]) -> list[bool]:
        if self._slots.is_fleet:
            return close_all(sessions, LEDGER_PATIENCE_S, resets=False)
        return close_all(sessions)

    def abandon(self, connection: Any) -> None:
        """Point the inherited descriptor elsewhere, so that nothing reaches the parent's server by it, and close."""
        try:
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, self._wires.pop(id(connection)).descriptor, inheritable=False)
            os.close(nowhere)
        except Exception:
            _abandoned.append(connection)
        else:
            with suppress(Exception):
                connection.close()

    def check(self, connection: Any) -> bool:
        with borrowed(connection, Upkeep()):
            return self._wrapper_class.answers(connection)

    def reset(self, connection: Any) -> bool:
        if connection.was_used_directly:
            return False  # it may have changed in unknown ways
        with self._unpooled() as wrapper:
            wrapper.connection, connection.borrower = connection, wrapper
            if not wrapper.reset_session():
                return False
            wrapper.let_go()
            return True

    def server_full(self, error: Exception) -> bool:
        return isinstance(error, SlotTakenError) or self._wrapper_class.says_full(error.__cause__ or error)
