"""gunicorn's settings under our plan, for people who start gunicorn themselves.

    gunicorn -c python:fullhouse.conf mysite.wsgi

The project is the one of DJANGO_SETTINGS_MODULE, or else the package of the application named on gunicorn's command
line. Options come from the project's FULLHOUSE dict and the environment; gunicorn's own arguments win, as always.
"""

import sys
from argparse import Namespace

from gunicorn.config import Config

from fullhouse.errors import ConfigurationError, FullhouseError
from fullhouse.site.databases import DatabaseHooks, publish
from fullhouse.site.planned import plan_for
from fullhouse.site.project import module_named_by
from fullhouse.supervisor.gunicorn_settings import gunicorn_settings, refuse_other_user, refuse_our_worker


def _gunicorns_words() -> Namespace:
    """gunicorn's own command line, which wins over what stands here."""
    words: Namespace = Config().parser().parse_known_args()[0]
    return words


try:
    _words = _gunicorns_words()
    refuse_other_user(_words.user, _words.group, "gunicorn")
    refuse_our_worker(_words.worker_class)
    _said = Namespace(worker_class=_words.worker_class) if _words.worker_class else Namespace()
    _planned = plan_for(module_named_by(_words.args[0] if _words.args else None), _said)
    _values = gunicorn_settings(_planned.settings, _planned.plan, _planned.project.name, DatabaseHooks())
    if _planned.settings.static and "static" in _planned.settings.sources:
        raise ConfigurationError(
            "static needs fullhouse serve. Under gunicorn, put WhiteNoise's middleware into MIDDLEWARE."
        )
    if _planned.plan.companions:
        raise ConfigurationError(
            "processes needs fullhouse serve. Under gunicorn, have them started by what starts gunicorn."
        )
    if _planned.settings.observe is not None:
        raise ConfigurationError("observe needs fullhouse serve. Under gunicorn, there is nothing to look at.")
    if "preload" not in _planned.settings.sources:  # gunicorn does not look whether that is safe
        _values["preload_app"] = False
    publish(_planned.plan, _planned.settings)
except FullhouseError as error:
    print(f"fullhouse: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
globals().update(_values)
