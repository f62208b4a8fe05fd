"""Write docs/reference/settings.md from the option table; with --check, only say whether it is up to date."""

import sys
from pathlib import Path

from fullhouse.settings.table import OPTIONS, Option

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
INTRODUCTION = """# Settings

<!-- Written by `make docs` from the option table in src/fullhouse/settings/table.py. -->

Every option can be given in four places; a later one wins:

1. its default, or what `gunicorn.conf.py` in the project's folder says,
2. the `FULLHOUSE` dict in the Django settings: `FULLHOUSE = {"budget": 20, "workers": 2}`,
3. the environment: `FULLHOUSE_BUDGET=20`; `PORT`, `WEB_CONCURRENCY` and `GUNICORN_CMD_ARGS` keep the meaning that
   gunicorn gives them, and come before the `FULLHOUSE_*` variables,
4. the command line: `--budget 20`.

Unknown names and impossible values are refused, with the nearest name that exists.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for group in dict.fromkeys(option.group for option in OPTIONS.values()):
        parts.append(f"\n## {group}\n\n| Option | Default | Meaning |\n|---|---|---|\n")
        parts += [_row(option) for option in OPTIONS.values() if option.group == group]
    return "".join(parts)


def _row(option: Option) -> str:
    default = option.default
    if default in (None, ()) or (option.kind.repeatable and not default):
        shown = "–"
    else:
        shown = f"`{', '.join(default) if isinstance(default, tuple) else default}`"
    kind = option.kind.description
    meaning = f"{option.help.replace('|', chr(92) + '|')} *{kind[0].upper() + kind[1:]}.*"
    return f"| `{option.name}`<br>`{option.flag}`<br>`{option.variable}` | {shown} | {meaning} |\n"


def main() -> int:
    if "--check" not in sys.argv:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    print("docs/reference/settings.md is not what the option table says: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
