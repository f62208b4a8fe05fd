"""`manage.py serve`: serve this project under its plan, or print the plan."""

import argparse
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from fullhouse.cli.main import add_format
from fullhouse.cli.plan import plan_text
from fullhouse.errors import FullhouseError
from fullhouse.settings.arguments import add_options, as_arguments


class Command(BaseCommand):
    """The same as `fullhouse serve`, for the project of this manage.py."""

    help = (
        "Serve this project in the foreground, within the database's connection limit; --plan prints the plan and why."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--plan", action="store_true", help="Print the plan, and serve nothing.")
        add_format(parser)
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        arguments = argparse.Namespace(**options)
        if options["plan"]:
            try:
                self.stdout.write(plan_text(None, arguments))
            except FullhouseError as error:
                raise CommandError(str(error), returncode=error.exit_code) from error
            return
        # A fresh interpreter: the master must not hold the site's code, or a reload would serve the old one.
        words = [sys.executable, "-m", "fullhouse", "serve", *as_arguments(arguments)]
        if options["traceback"]:
            words.append("--traceback")
        paths = [sys.path[0], *filter(None, [os.environ.get("PYTHONPATH")])]
        os.execve(sys.executable, words, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})  # noqa: S606
