"""fullhouse as an app of a site: its commands, and its checks."""

from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register


class FullhouseConfig(AppConfig):
    """`INSTALLED_APPS = ["fullhouse"]`."""

    name = "fullhouse"

    def ready(self) -> None:
        register(_check("of_options"))
        register(_check("of_settings"), deploy=True)
        register(_check("of_servers"), Tags.database)


def _check(name: str) -> Callable[..., list[CheckMessage]]:
    """One of `checks`, which is imported when it is asked: most processes never ask."""

    def check(**arguments: Any) -> list[CheckMessage]:
        from fullhouse import checks

        found: list[CheckMessage] = getattr(checks, name)(**arguments)
        return found

    return check
