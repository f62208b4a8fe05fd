"""The options of a pool, validated once and then frozen."""

import dataclasses
import math

from fullhouse.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What a pool may do, and for how long. Raises ConfigurationError for a value that cannot be used.

    max_size: connections that the pool may hold; None: as many as it gets slots.
    checkout_timeout_s: how long a checkout waits for a connection.
    max_waiting: checkouts that may wait at once, more are refused at once; None: as many as there are
        threads.
    max_lifetime_s: age at which a connection is replaced, less up to 5 % so that not all go at once; None:
        never.
    idle_timeout_s: how long an unused connection is kept; None: for ever.
    check_after_idle_s: a connection unused for longer is checked before it is lent; None: never checked.
    leak_after_s: a connection lent for longer is reported, once, with its borrower's stack; None: never.
        On by default, because it costs a checkout nothing: the stack is read when the report is made.
    """

    max_size: int | None = None
    checkout_timeout_s: float = 5.0
    max_waiting: int | None = None
    max_lifetime_s: float | None = 1800.0
    idle_timeout_s: float | None = 300.0
    check_after_idle_s: float | None = 1.0
    leak_after_s: float | None = 60.0

    def __post_init__(self) -> None:
        _refuse_unless_count("max_size", self.max_size, least=1)
        _refuse_unless_count("max_waiting", self.max_waiting, least=0)
        _refuse_unless_seconds("checkout_timeout_s", self.checkout_timeout_s, zero_allowed=True, none_allowed=False)
        _refuse_unless_seconds("check_after_idle_s", self.check_after_idle_s, zero_allowed=True)
        _refuse_unless_seconds("max_lifetime_s", self.max_lifetime_s)
        _refuse_unless_seconds("idle_timeout_s", self.idle_timeout_s)
        _refuse_unless_seconds("leak_after_s", self.leak_after_s)


def _refuse_unless_count(name: str, value: object, *, least: int) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return
    raise ConfigurationError(f"{name} is {value!r}; give a whole number of at least {least}, or None for no limit.")


def _refuse_unless_seconds(
    name: str, value: float | None, *, zero_allowed: bool = False, none_allowed: bool = True
) -> None:
    if value is None and none_allowed:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and value is not None and (value > 0 or (value == 0 and zero_allowed)):
        return
    least = "0 or more" if zero_allowed else "more than 0"
    never = ", or None for never" if none_allowed else ""
    raise ConfigurationError(f"{name} is {value!r}; give a number of seconds, {least}{never}.")
