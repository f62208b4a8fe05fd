"""`OPTIONS["pool"]`: how one alias of `DATABASES` is pooled."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.pool.options import PoolOptions
from fullhouse.settings.layers import nearest

MODES = ("transaction", "request", "session")
# The user's name of each option of the pool: seconds go without saying in Django's settings.
POOL_OPTIONS = {field.name.removesuffix("_s"): field.name for field in fields(PoolOptions)}


class Unpooled:
    """Stands in `OPTIONS["pool"]` of a wrapper with a session of its own. A class, since a copy of one is itself."""


@dataclass(frozen=True)
class PoolSettings:
    """mode: how long a thread keeps a connection (docs/concepts/pooling.md). pool: the rest."""

    mode: str
    pool: PoolOptions


def unpooled_settings(settings_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an entry of `DATABASES`, for a wrapper with a session of its own."""
    return {**settings_dict, "OPTIONS": {**settings_dict["OPTIONS"], "pool": Unpooled}}


def is_unpooled(settings_dict: Mapping[str, Any]) -> bool:
    """Whether this is such a copy."""
    return settings_dict["OPTIONS"].get("pool") is Unpooled


def pool_settings(alias: str, settings_dict: Mapping[str, Any]) -> PoolSettings:
    """The settings of `DATABASES[alias]`. Raises ConfigurationError."""
    where = f"DATABASES[{alias!r}]"
    if settings_dict["CONN_MAX_AGE"] != 0:
        raise ConfigurationError(
            f"{where}: CONN_MAX_AGE is {settings_dict['CONN_MAX_AGE']!r}, but the pool decides how long a connection "
            "lives.\nRemove CONN_MAX_AGE, or set it to 0; the pool's option is max_lifetime."
        )
    given = settings_dict["OPTIONS"].get("pool", True)
    if given is True or given is Unpooled:
        given = {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"{where}: OPTIONS['pool'] is {given!r}; give True or a dict of options. "
            "To serve without a pool, use Django's own ENGINE."
        )
    known = ["mode", *POOL_OPTIONS]
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{where}: OPTIONS['pool'] has no option {name!r}.{nearest(str(name), known)}")
    mode = given.get("mode", "transaction")
    if mode not in MODES:
        raise ConfigurationError(f"{where}: the pooling mode is {mode!r}; it must be one of {', '.join(MODES)}.")
    values = {POOL_OPTIONS[name]: value for name, value in given.items() if name != "mode"}
    if mode == "session":
        values.setdefault("leak_after_s", None)  # keeping it is the point of the mode
    try:
        return PoolSettings(mode, PoolOptions(**values))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: OPTIONS['pool']: {error}") from error
