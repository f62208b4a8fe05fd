"""Options are used as given or refused."""

import dataclasses
import math

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.pool.options import PoolOptions


def test_defaults_are_those_of_the_design() -> None:
    assert dataclasses.asdict(PoolOptions()) == {
        "max_size": None,
        "checkout_timeout_s": 5.0,
        "max_waiting": None,
        "max_lifetime_s": 1800.0,
        "idle_timeout_s": 300.0,
        "check_after_idle_s": 1.0,
        "leak_after_s": 60.0,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_size", 0),
        ("max_size", 2.5),
        ("max_size", True),
        ("max_waiting", -1),
        ("checkout_timeout_s", -0.1),
        ("checkout_timeout_s", None),
        ("checkout_timeout_s", "5"),
        ("max_lifetime_s", 0),
        ("idle_timeout_s", math.inf),
        ("idle_timeout_s", math.nan),
        ("check_after_idle_s", -1),
        ("leak_after_s", False),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}; give a .*"):
        PoolOptions(**{name: value})


def test_never_and_at_once_can_be_said() -> None:
    PoolOptions(max_lifetime_s=None, idle_timeout_s=None, check_after_idle_s=None, leak_after_s=None)
    PoolOptions(checkout_timeout_s=0, check_after_idle_s=0, max_waiting=0)
