"""gunicorn's settings under our plan, for people who start gunicorn themselves.

    gunicorn -c python:fullhouse.conf mysite.wsgi

The project is the one of DJANGO_SETTINGS_MODULE, or else the package of the application named on gunicorn's command
line. Options come from the project's FULLHOUSE dict and the environment; gunicorn's own arguments win, as always.
"""

import sys
from argparse import Namespace

from gunicorn.config import Config

from fullhouse.databases import Equipment, publish
from fullhouse.errors import FullhouseError
from fullhouse.planning import plan_for
from fullhouse.project import module_named_by
from fullhouse.supervisor.gunicorn_settings import gunicorn_settings


def _application_named() -> str | None:
    """`mysite.wsgi:application` of gunicorn's command line."""
    words, _ = Config().parser().parse_known_args()
    return words.args[0] if words.args else None


try:
    _planned = plan_for(module_named_by(_application_named()), Namespace())
    publish(_planned.plan, _planned.settings)
except FullhouseError as error:
    print(f"fullhouse: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
globals().update(gunicorn_settings(_planned.settings, _planned.plan, _planned.project.name, Equipment()))
