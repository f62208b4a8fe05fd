"""The command line: parse the arguments, run the command, print. Exit codes: `docs/reference/exit-codes.md`."""

import argparse
import os
import shutil
import signal
import socket
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

from fullhouse import __version__
from fullhouse.cli import top, verbs
from fullhouse.cli.banner import banner, wants_colour
from fullhouse.cli.deploy import deploy
from fullhouse.cli.doctor import doctor
from fullhouse.cli.plan import plan_text
from fullhouse.cli.tune import STEP_S, tune
from fullhouse.deploy.files import FILES
from fullhouse.errors import ConfigurationError, FullhouseError
from fullhouse.private_folder import runtime_folder
from fullhouse.settings.arguments import add_options, as_arguments
from fullhouse.settings.layers import nearest
from fullhouse.settings.table import OPTIONS
from fullhouse.site.databases import DatabaseHooks
from fullhouse.site.planned import Planned, plan_for
from fullhouse.supervision import Order, become_supervisor
from fullhouse.supervisor import instances
from fullhouse.supervisor.gunicorn_settings import gunicorn_settings, umask_of
from fullhouse.supervisor.listen import check_tls, listening
from fullhouse.supervisor.logfile import LogFile
from fullhouse.supervisor.pid_file import pid_file
from fullhouse.supervisor.systemd import activated_sockets
from fullhouse.tune.load import Stream

DESCRIPTION = (
    "A production server for Django that never exceeds your database's connection limit: it plans workers, threads and "
    "connections from the live limit, and serves under that plan."
)
PROJECT_HELP = (
    "Name of the Django project: mysite means mysite.settings, run from the folder that holds manage.py. "
    "Optional if DJANGO_SETTINGS_MODULE is set."
)
FROM_HELP = (
    "Show what becomes of this file, too: uWSGI's .ini, NGINX Unit's .json, a Procfile, or a gunicorn configuration "
    "(.py). Those with the usual names are found. May be given several times."
)
OVERVIEW = """start here, in the folder that holds manage.py:
  fullhouse plan mysite                  show what fits this machine and the live database, and why
  fullhouse serve mysite                 serve under that plan on 127.0.0.1:8000
  fullhouse start mysite 8000            serve in the background; see also reload and status
  fullhouse deploy nginx mysite          print files for nginx, supervisord, systemd and logrotate
  fullhouse serve --help                 list every option; FULLHOUSE in settings takes the same

exit codes: 0 success, 2 configuration or plan refused, 3 database unreachable, 4 cannot listen,
5 application does not load, 6 not running, 7 already running, 130 interrupted"""
# Variables that a restart from another shell needs.
FINDS_THE_PROJECT = ("DJANGO_SETTINGS_MODULE", "PYTHONPATH")
# For the live page: the user's group may read the figures, and nobody else, where its address is a Unix socket.
OBSERVE_BACKLOG, OBSERVE_UMASK = 16, 0o117
FLAGS = [option.flag for option in OPTIONS.values()]
PLANNED = {
    "plan": "Show how many workers, threads and connections fit, and why.",
    "serve": "Serve the project in the foreground.",
    "doctor": "Look for what will go wrong: in settings, machine, databases, nginx, and the running site.",
    "deploy": "Print files for supervisord, systemd, nginx, docker, compose, kubernetes and others, by the plan.",
}
VERBS = {
    "start": "Serve the project in the background, with a rotating log file.",
    "stop": "Finish running requests, then stop the server.",
    "restart": "Stop the server and start it again with the same options.",
    "reload": "Reload the current code without dropping a request; the old code serves until the new is ready.",
    "status": "Show the running servers.",
    "top": "Show a running server's figures, every second: rates, times, sessions by holder, workers, routes.",
    "tune": "Find how much a running server can serve, and what holds it there, by a load from this machine.",
    "logs": "Show the end of the server's log file.",
    "dump": "Show what every thread of every worker is at: its request, its statement, its stack.",
}
EXAMPLES = {
    "plan": """examples:
  fullhouse plan mysite                             plan for this machine and the live database
  fullhouse plan mysite --format json               the same as JSON
  fullhouse plan mysite --from deploy/uwsgi.ini     and what becomes of that file's lines
  fullhouse plan mysite --max-connections 1000 --reserve 40 --cores 8 --sizing recipe
                                                    plan for another machine, without a database""",
    "deploy": """examples:
  fullhouse deploy supervisord mysite > /etc/supervisor/conf.d/mysite.conf
  fullhouse deploy systemd mysite --into /etc/systemd/system
  fullhouse deploy docker mysite --into .           a Containerfile; then compose, or kubernetes""",
    "doctor": """examples:
  fullhouse doctor mysite                           each finding: the fact, its numbers, what to do
  fullhouse doctor mysite --format json             the same as JSON; exit code 1 where there is an error""",
    "serve": """examples:
  fullhouse serve mysite                            on 127.0.0.1:8000, Ctrl-C stops it
  fullhouse serve mysite -b 0.0.0.0:80 --budget 20  on port 80, with at most 20 database sessions
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
    for name, summary in PLANNED.items():
        _add_planned(commands, name, summary)
    for name, summary in VERBS.items():
        _add_verb(commands, name, summary)
    return parser


def _add_planned(commands: Any, name: str, summary: str) -> None:
    words = "PROGRAM [PROJECT]" if name == "deploy" else "[PROJECT]"
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=EXAMPLES[name],
        usage=f"fullhouse {name} {words} [OPTION ...]",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    if name == "deploy":
        command.add_argument("kind", choices=FILES, metavar="PROGRAM", help="One of " + ", ".join(FILES) + ".")
        command.add_argument("--into", metavar="FOLDER", help="Write the files to this folder instead.")
    command.add_argument("project", nargs="?", metavar="PROJECT", help=PROJECT_HELP)
    command.add_argument("--traceback", action="store_true", help="Show the full traceback of an error.")
    if name in ("plan", "doctor"):
        add_format(command)
    if name == "plan":
        command.add_argument("--from", dest="others", action="append", metavar="FILE", help=FROM_HELP)
    add_options(command)


def _add_verb(commands: Any, name: str, summary: str) -> None:
    words, more = ("[PROJECT [PORT]]", "?") if name == "status" else ("PROJECT [PORT]", None)
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        usage=f"fullhouse {name} {words} [OPTION ...]",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("project", nargs=more, metavar="PROJECT", help="Name of the project.")
    command.add_argument("port", nargs="?", metavar="PORT", help="Its port, if it runs on several.")
    command.add_argument("--traceback", action="store_true", help="Show the full traceback of an error.")
    if name == "start":
        add_options(command)
    elif name == "status":
        add_format(command)
        command.add_argument("--database", action="store_true", help="Also show who holds the database sessions.")
    elif name == "tune":
        add_format(command)
        command.add_argument("--path", default="/", metavar="/PATH", help="The page to ask for (default: /).")
        command.add_argument("--host", default="localhost", help="The Host to ask for (default: localhost).")
        command.add_argument(
            "--seconds", type=int, default=STEP_S, help=f"Of each of about 15 steps (default: {STEP_S})."
        )
        command.add_argument("--write", type=Path, metavar="FILE", help="Set the options in this environment file.")
    elif name == "top":
        add_format(command)
        command.add_argument("--once", action="store_true", help="Print one look, which takes a second, and end.")
    elif name == "logs":
        command.add_argument("--lines", type=int, default=100, help="Number of lines (default: 100).")
        command.add_argument("--follow", action="store_true", help="Follow the log until Ctrl-C.")


def add_format(parser: argparse.ArgumentParser) -> None:
    """The choice between output for people and for programs."""
    parser.add_argument("--format", choices=["text", "json"], default="text", help="Output format (default: text).")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    arguments, unknown = make_parser().parse_known_args(words)
    try:
        if unknown:
            raise _not_understood(unknown[0])
        code = _run(arguments, words)
        sys.stdout.flush()
        return code
    except FullhouseError as error:
        if arguments.traceback:
            traceback.print_exc()
        print(f"fullhouse: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has ended, as in `fullhouse plan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    if arguments.command not in PLANNED:
        _address(arguments)
        return 0
    if arguments.command == "plan":
        print(plan_text(arguments.project, arguments))
        return 0
    if arguments.command == "doctor":
        report, code = doctor(arguments.project, arguments)
        print(report)
        return code
    with redirect_stdout(sys.stderr):  # what the site's settings print is no part of a file
        planned = plan_for(arguments.project, arguments)
    if arguments.command == "serve":
        return _serve(planned, words)
    print(deploy(arguments.kind, planned, [*as_arguments(arguments)], arguments.into))
    return 0


def _address(arguments: argparse.Namespace) -> None:
    """Run one of the commands that are about a running server."""
    project, port = arguments.project, arguments.port
    match arguments.command:
        case "start":
            print(verbs.start(project, port, [*as_arguments(arguments)]))
        case "stop":
            print(verbs.stop(project, port))
        case "restart":
            print(verbs.restart(project, port))
        case "reload":
            print(verbs.reload(project, port))
        case "dump":
            print(verbs.dump(project, port))
        case "status":
            print(verbs.status(project, port, arguments.format, with_sessions=arguments.database))
        case "tune":
            page = Stream(arguments.path, 0.0, host=arguments.host)
            print(tune(project, port, page, arguments.seconds, arguments.format, arguments.write))
        case "top" if arguments.once or arguments.format == "json" or not sys.stdout.isatty():
            print(top.once(project, port, arguments.format))
        case "top":
            top.follow(project, port)
        case _:
            verbs.logs(project, port, arguments.lines, follow=arguments.follow)


def _not_understood(word: str) -> ConfigurationError:
    if word.startswith("-"):
        return ConfigurationError(f"Unknown option {word}.{nearest(word.partition('=')[0], FLAGS)}")
    return ConfigurationError(f"Unexpected argument {word!r}: a command takes one PROJECT and options.")


def _serve(planned: Planned, words: Sequence[str]) -> NoReturn:
    settings = planned.settings
    values = gunicorn_settings(settings, planned.plan, planned.project.name, DatabaseHooks())
    check_tls(settings.certfile, settings.keyfile)
    runtime_folder()  # refuses before anything is said
    if settings.log_file is not None:
        LogFile(Path(settings.log_file).absolute()).close()  # refused now where it cannot be written
    # Until the supervisor listens: nothing is loaded or open yet.
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    activated = activated_sockets(os.environ)
    with (
        pid_file(values.get("pidfile")),
        nullcontext(activated)
        if activated
        else listening(settings.bind, settings.backlog, umask_of(values)) as sockets,
        listening(
            [settings.observe] if settings.observe else [], OBSERVE_BACKLOG, OBSERVE_UMASK, "--observe"
        ) as observe,
    ):
        addresses, page = [_name(listener) for listener in sockets], [_name(listener) for listener in observe]
        print(banner(planned, addresses, page, colour=wants_colour(sys.stdout)), flush=True)
        opened = [name for name in (*([] if activated else addresses), *page) if name.startswith("unix:")]
        _supervise(planned, words, sockets, values, [name.removeprefix("unix:") for name in opened], observe)
    raise AssertionError("this process is the supervisor now")


def _supervise(
    planned: Planned,
    words: Sequence[str],
    sockets: Sequence[socket.socket],
    values: Mapping[str, Any],
    opened: list[str],
    observe: Sequence[socket.socket],
) -> None:
    """Become the supervisor of the sockets, where commands can find and reach it.

    values: gunicorn's settings. opened: the files of Unix sockets, to be removed at the end. observe: the socket of the
    live page, if any.
    """
    settings = planned.settings
    environment = {name: os.environ[name] for name in FINDS_THE_PROJECT if name in os.environ}
    log = settings.log_file and str(Path(settings.log_file).absolute())
    facts = {"words": list(words), "folder": os.getcwd(), "environment": environment, "log": log}
    port = instances.port_of(_name(sockets[0]))
    instance, lock = instances.claim(runtime_folder(), planned.project.name, port, facts)
    try:
        become_supervisor(
            Order(
                name=values["proc_name"],
                words=list(words),
                listeners=[one.fileno() for one in sockets],
                lock=lock,
                lock_path=str(instance.lock),
                facts=instance.facts,
                opened=opened,
                pid_file=values.get("pidfile"),
                log=log,
                boot_timeout=settings.boot_timeout,
                graceful_timeout=settings.graceful_timeout,
                stop_delay=settings.stop_delay,
                observe=[one.fileno() for one in observe],
            )
        )
    finally:
        instances.release(instance, lock)


def _name(listener: socket.socket) -> str:
    """The address as bound: with the port that the kernel chose for port 0."""
    bound = listener.getsockname()
    if isinstance(bound, str):
        return f"unix:{bound}"
    host, port = bound[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
