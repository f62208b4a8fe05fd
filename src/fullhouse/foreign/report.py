"""What other servers' configurations lie in a project's folder, and what becomes of them, as text and as data."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from typing import Any

from fullhouse.errors import ConfigurationError
from fullhouse.foreign import gunicorn, procfile, unit, uwsgi
from fullhouse.foreign.lines import Source, merged
from fullhouse.supervisor.gunicorn_args import CONFIG_FILE

VARIABLE = "GUNICORN_CMD_ARGS"
# Where people keep them.
_USUAL = ("Procfile", "uwsgi.ini", "unit.json")


def found(folder: Path, environ: Mapping[str, str], named: Sequence[str] = ()) -> list[Source]:
    """Those of the folder, of the environment, and the files `named`. Raises ConfigurationError."""
    sources: list[Source] = []
    if (folder / CONFIG_FILE).is_file():
        sources.append(gunicorn.from_file(folder / CONFIG_FILE, is_read=True))
    if environ.get(VARIABLE):
        try:
            words = shlex.split(environ[VARIABLE])
        except ValueError as error:
            raise ConfigurationError(f"{VARIABLE}: {error}.") from error
        sources.append(Source(VARIABLE, tuple(gunicorn.from_words(words)), is_read=True))
    for name in [*(name for name in _USUAL if (folder / name).is_file()), *named]:
        sources += _read(folder / name)
    return list({source.name: source for source in sources}.values())


def _read(path: Path) -> list[Source]:
    if path.suffix == ".py":
        return [gunicorn.from_file(path)]
    if path.suffix == ".ini":
        return [uwsgi.from_file(path)]
    if path.suffix == ".json":
        return [unit.from_file(path)]
    return procfile.from_file(path)


def as_text(sources: Sequence[Source]) -> str:
    """A table for each, and the FULLHOUSE dict that says what nothing reads; empty where there are none."""
    parts = []
    for source in sources:
        fates = max((len(line.fate) for line in source.lines), default=0)
        parts.append(f"What becomes of {source.name}" + (", which fullhouse reads" if source.is_read else ""))
        for line in source.lines:
            parts += [f"  {line.text}", f"      {line.fate:<{fates}}  {line.remark}".rstrip()]
        parts.append("")
    if options := _options(sources):
        text = pformat(options, width=100, sort_dicts=False)
        parts += ["In the settings:", "", "FULLHOUSE = " + text.replace("\n", "\n            ")]
    return "\n".join(parts).rstrip()


def as_data(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The same, for programs."""
    return [
        {
            "name": source.name,
            "read": source.is_read,
            "lines": [{"text": line.text, "fate": line.fate, "remark": line.remark} for line in source.lines],
            "options": {} if source.is_read else merged(source.lines),
        }
        for source in sources
    ]


def _options(sources: Sequence[Source]) -> dict[str, Any]:
    return merged(tuple(line for source in sources if not source.is_read for line in source.lines))
