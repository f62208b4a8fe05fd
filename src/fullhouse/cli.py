"""The command line: parse, call a room, print. Exit codes are in `docs/exit-codes.md`."""

import argparse
import shutil
import socket
import sys
import textwrap
import traceback
from collections.abc import Sequence

from fullhouse import __version__
from fullhouse.banner import banner, wants_colour
from fullhouse.databases import publish
from fullhouse.errors import ConfigurationError, FullhouseError
from fullhouse.options import add_options
from fullhouse.plan.report import as_json, as_text
from fullhouse.planning import Planned, plan_for
from fullhouse.settings import OPTIONS, nearest
from fullhouse.supervisor import master
from fullhouse.supervisor.gunicorn_settings import gunicorn_settings
from fullhouse.supervisor.listen import check_tls, listening

DESCRIPTION = (
    "Run Django under gunicorn with the house full: every database connection working, and never one too many."
)
PROJECT_HELP = (
    "Name of the Django project: mysite means mysite.settings, run from the folder that holds manage.py. "
    "May be left out where DJANGO_SETTINGS_MODULE is set."
)
OVERVIEW = """start here, in the folder that holds manage.py:
  fullhouse plan mysite                  what fits this machine and the live database, and why
  fullhouse serve mysite                 serve under that plan on 127.0.0.1:8000
  fullhouse serve --help                 every option; FULLHOUSE in settings takes the same

exit codes: 0 done, 2 configuration or plan refused, 3 database cannot be asked, 4 address cannot be
listened on, 5 application does not load, 130 interrupted before serving"""
FLAGS = [option.flag for option in OPTIONS.values()]
EXAMPLES = {
    "plan": """examples:
  fullhouse plan mysite                             the plan for this machine and the live database
  fullhouse plan mysite --format json               the same, for programs
  fullhouse plan mysite --max-connections 1000 --reserve 40 --cores 8 --sizing recipe
                                                    a plan for another machine: nothing is asked""",
    "serve": """examples:
  fullhouse serve mysite                            on 127.0.0.1:8000, Ctrl-C stops it
  fullhouse serve mysite -b 0.0.0.0:80 --budget 20  on port 80, 20 database sessions at the most
  fullhouse serve mysite --reload --access-log -    for development""",
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help in two columns, as wide as the terminal and 100 characters at the most."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(100, shutil.get_terminal_size((100, 24)).columns))


def make_parser() -> argparse.ArgumentParser:
    """The parser of `fullhouse`."""
    parser = argparse.ArgumentParser(
        prog="fullhouse", description=textwrap.fill(DESCRIPTION, 98), epilog=OVERVIEW, formatter_class=HelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"fullhouse {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in (
        ("plan", "Print how many workers, threads and connections fit, and how each number came about."),
        ("serve", "Serve the project in the foreground under its plan."),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=EXAMPLES[name],
            usage=f"fullhouse {name} [PROJECT] [OPTION ...]",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("project", nargs="?", metavar="PROJECT", help=PROJECT_HELP)
        command.add_argument("--traceback", action="store_true", help="Show the whole traceback of an error.")
        if name == "plan":
            add_format(command)
        add_options(command)
    return parser


def add_format(parser: argparse.ArgumentParser) -> None:
    """The choice between output for people and for programs."""
    parser.add_argument(
        "--format", choices=["text", "json"], default="text", help="text for people, json for programs."
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    arguments, unknown = make_parser().parse_known_args(words)
    try:
        if unknown:
            raise _not_understood(unknown[0])
        planned = plan_for(arguments.project, arguments)
        if arguments.command == "plan":
            print(plan_text(planned, arguments.format))
            return 0
        return _serve(planned, with_traceback=arguments.traceback)
    except FullhouseError as error:
        if arguments.traceback:
            traceback.print_exc()
        print(f"fullhouse: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _not_understood(word: str) -> ConfigurationError:
    if word.startswith("-"):
        return ConfigurationError(f"There is no option {word}.{nearest(word.partition('=')[0], FLAGS)}")
    return ConfigurationError(f"The word {word!r} is one too many: a command takes one PROJECT, and options.")


def plan_text(planned: Planned, output_format: str) -> str:
    """The plan as `--format` wants it."""
    if output_format == "json":
        return as_json(planned.plan, planned.project.name)
    return as_text(planned.plan, f"Plan for {planned.project.name}")


def _serve(planned: Planned, *, with_traceback: bool) -> int:
    settings = planned.settings
    values = gunicorn_settings(settings, planned.plan, planned.project.name)
    check_tls(settings.certfile, settings.keyfile)
    with listening(settings.bind, settings.backlog) as sockets:
        addresses = [_name(listener) for listener in sockets]
        print(banner(planned, addresses, colour=wants_colour(sys.stdout)), flush=True)
        publish(planned.plan)
        values["bind"] = [f"fd://{listener.detach()}" for listener in sockets]
        return master.serve(planned.project, values, with_traceback=with_traceback)


def _name(listener: socket.socket) -> str:
    """The address as bound: with the port that the kernel chose for port 0."""
    bound = listener.getsockname()
    if isinstance(bound, str):
        return f"unix:{bound}"
    host, port = bound[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
