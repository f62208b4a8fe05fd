"""Django's system checks, `manage.py check`: what the doctor knows without serving (docs/reference/checks.md)."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from fullhouse.db.pool_settings import pool_settings
from fullhouse.doctor import database_rules, settings_rules
from fullhouse.doctor.finding import Finding
from fullhouse.errors import ConfigurationError, FullhouseError
from fullhouse.settings.layers import from_environment, layered
from fullhouse.settings.table import Settings
from fullhouse.site.databases import ask_limits, longest_lifetime_s, ports
from fullhouse.site.static_files import static_files

_KINDS = {"error": checks.Error, "warning": checks.Warning, "note": checks.Info}
_OURS = tuple(settings_rules.STOCK_ENGINES.values())


def of_options(**_: Any) -> list[CheckMessage]:
    """The options in FULLHOUSE and of the pools: whether `serve` and the engines will take them."""
    findings: list[Finding] = []
    try:
        _options()
    except ConfigurationError as error:
        findings.append(Finding("E001", str(error), "fullhouse serve --help lists all options."))
    for alias, database in settings.DATABASES.items():
        if database.get("ENGINE") in _OURS:
            full = {"CONN_MAX_AGE": 0, "OPTIONS": {}, **database}
            try:
                pool_settings(alias, full)
            except ConfigurationError as error:
                findings.append(Finding("E002", str(error), "docs/concepts/pooling.md lists the pool's options."))
    return _messages(findings)


def of_settings(**_: Any) -> list[CheckMessage]:
    """What should be otherwise where people visit the site. For `check --deploy`."""
    try:
        options = _options()
        said = static_files(options, settings).said
    except ConfigurationError:
        return []  # `of_options` has told it
    return _messages(settings_rules.of_all(settings, options, said))


def of_servers(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """What the database servers say. Connects, so only for `check --database ALIAS`."""
    if not databases:
        return []
    try:
        limits = [limit for limit in ask_limits(_options()).limits if set(limit.aliases) & set(databases)]
    except FullhouseError as error:
        return _messages([Finding("E003", str(error), "fullhouse plan shows what is asked.")])
    found = [finding for limit in limits for finding in database_rules.of_idle_limit(limit, longest_lifetime_s(limit))]
    asked = [each for limit in limits for each in ports(limit) if each[0] in databases]
    return _messages([*found, *(finding for each in asked for finding in database_rules.of_port(*each))])


def _options() -> Settings:
    given = getattr(settings, "FULLHOUSE", {})
    return from_environment(layered(Settings(), given, "FULLHOUSE"), os.environ)


def _messages(findings: Iterable[Finding]) -> list[CheckMessage]:
    return [_KINDS[one.severity](one.fact, hint=one.remedy, id=f"fullhouse.{one.id}") for one in findings]
