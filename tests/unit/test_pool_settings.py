"""`OPTIONS["pool"]`: what cannot be used is refused, with the fact, the alias and the remedy."""

import copy
from typing import Any

import pytest

from fullhouse.db.pool_settings import MODES, PoolSettings, Unpooled, is_unpooled, pool_settings, unpooled_settings
from fullhouse.errors import ConfigurationError
from fullhouse.pool.options import PoolOptions


def settings(max_age: Any = 0, **options: Any) -> PoolSettings:
    return pool_settings("main", {"CONN_MAX_AGE": max_age, "OPTIONS": options})


def test_on_by_default() -> None:
    assert settings() == settings(pool=True) == settings(pool={}) == PoolSettings("transaction", PoolOptions())


@pytest.mark.parametrize("mode", MODES)
def test_every_option(mode: str) -> None:
    pool = {
        "max_size": 7,
        "max_waiting": 8,
        "checkout_timeout": 0.5,
        "max_lifetime": None,
        "idle_timeout": 60,
        "check_after_idle": 0,
        "leak_after": 9,
    }
    seconds = {"checkout_timeout", "max_lifetime", "idle_timeout", "check_after_idle", "leak_after"}
    expected = PoolOptions(**{name + "_s" * (name in seconds): value for name, value in pool.items()})
    assert settings(pool={"mode": mode, **pool}) == PoolSettings(mode, expected)


def test_keeping_a_connection_is_no_leak_in_session_mode() -> None:
    assert settings(pool={"mode": "session"}).pool.leak_after_s is None


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"max_sise": 5}, r"no option 'max_sise'.*max_size"),
        ({"timeout": 5}, r"no option 'timeout'.*(?:checkout|idle)_timeout"),
        ({"min_size": 5}, r"no option 'min_size'.*max_size"),
        ({"max_lifetime_s": 5}, r"no option 'max_lifetime_s'.*max_lifetime"),
        ({7: 5}, r"no option 7"),
        ({"mode": "statement"}, r"mode is 'statement'.*transaction, request, session"),
        ({"max_size": 0}, r"max_size is 0"),
        ({"max_size": True}, r"max_size is True"),
        ({"checkout_timeout": -1}, r"checkout_timeout_s is -1"),
        ({"checkout_timeout": None}, r"checkout_timeout_s is None"),
        (False, r"OPTIONS\['pool'\] is False.*Django's own ENGINE"),
        ("yes", r"OPTIONS\['pool'\] is 'yes'"),
    ],
)
def test_refused(pool: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)^DATABASES\['main'\].*{message}"):
        settings(pool=pool)


@pytest.mark.parametrize("age", [None, 60, "0"])
def test_persistent_connections_are_refused(age: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"CONN_MAX_AGE is .*\n.*set it to 0.*max_lifetime"):
        settings(max_age=age)


def test_an_unpooled_wrapper_is_known_by_its_settings_and_their_copies() -> None:
    given = {"OPTIONS": {"pool": {"mode": "session"}, "charset": "utf8mb4"}, "NAME": "x", "CONN_MAX_AGE": 0}
    unpooled = copy.deepcopy(unpooled_settings(given))
    assert is_unpooled(unpooled)
    assert not is_unpooled(given)
    assert unpooled == {**given, "OPTIONS": {"pool": Unpooled, "charset": "utf8mb4"}}
    assert pool_settings("default", unpooled) == pool_settings("default", {"OPTIONS": {}, "CONN_MAX_AGE": 0})
