"""`fullhouse plan`: the plan, and what becomes of the configurations of other servers that lie beside it."""

import json
import os
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

from fullhouse.errors import FullhouseError
from fullhouse.foreign import report as foreign
from fullhouse.plan.report import as_data, as_text
from fullhouse.site.planned import plan_for


def plan_text(name: str | None, arguments: Namespace) -> str:
    """The plan of a project as `arguments.format` wants it.

    Where it is refused, what becomes of those files is printed all the same: they may be the reason. Raises
    FullhouseError.
    """
    with redirect_stdout(sys.stderr):  # what the settings, or a gunicorn.conf.py, print is no part of a plan
        sources = foreign.found(Path.cwd(), os.environ, getattr(arguments, "others", None) or [])
        try:
            planned = plan_for(name, arguments)
        except FullhouseError:
            if sources:
                print(foreign.as_text(sources))
            raise
    if arguments.format == "json":
        document = as_data(planned.plan, planned.project.name, planned.static.said)
        return json.dumps({**document, "others": foreign.as_data(sources)}, indent=2, ensure_ascii=False)
    text = as_text(planned.plan, f"Plan for {planned.project.name}", planned.static.said)
    return "\n\n".join(filter(None, [text, foreign.as_text(sources)]))
