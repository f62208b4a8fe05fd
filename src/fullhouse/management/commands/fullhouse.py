"""`manage.py fullhouse VERB`: start, stop, restart, reload, status and logs, for the project of this manage.py."""

import os
import sys
from argparse import REMAINDER
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from fullhouse.cli.main import VERBS
from fullhouse.site.project import find


class Command(BaseCommand):
    """The same as `fullhouse VERB PROJECT …`."""

    help = "Start, stop, restart, reload, show the server of this project: the commands of `fullhouse`, by their names."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", choices=VERBS, help="; ".join(f"{name}: {what}" for name, what in VERBS.items()))
        parser.add_argument(
            "words", nargs=REMAINDER, metavar="WORD", help="As for `fullhouse VERB PROJECT`, such as the port."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        words = [sys.executable, "-m", "fullhouse", options["verb"], find(None).name, *options["words"]]
        paths = [sys.path[0], *filter(None, [os.environ.get("PYTHONPATH")])]
        os.execve(sys.executable, words, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})  # noqa: S606
