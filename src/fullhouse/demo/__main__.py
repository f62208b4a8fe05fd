"""`python -m fullhouse.demo [OPTION ...]`: open the box office, then serve it as `fullhouse serve` would."""

import os
import subprocess
import sys
from importlib.util import find_spec

from fullhouse.cli.main import main, make_parser

SETTINGS = "fullhouse.demo.settings"
OPENING = "from fullhouse.demo.opening import open_admin, prepare; prepare(); open_admin()"
# Confirms the orders, where the package that it belongs to is installed.
TASK_WORKER = "--processes=tasks='python -m django db_worker --interval 0.2'"

LIVE_PAGE = "--observe=127.0.0.1:0"


def run(options: list[str]) -> int:
    """Make the tables and the seats, and serve until Ctrl-C. Returns the exit code."""
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    options = [LIVE_PAGE, *options]
    if find_spec("django_tasks_db") is not None:
        options = [TASK_WORKER, *options]
    make_parser().parse_known_args(["serve", *options])  # answers --help before anything is made
    # A plan first, so that a database that cannot be asked is reported in a line. The seats are made in a process of
    # its own: the one that serves forks its workers, and must hold no connection and no app.
    plan = [sys.executable, "-m", "fullhouse", "plan", *options]
    refused = subprocess.run(plan, stdout=subprocess.DEVNULL, check=False).returncode
    if refused:
        return refused
    failed = subprocess.run([sys.executable, "-c", OPENING], check=False).returncode
    return failed or main(["serve", *options])


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
