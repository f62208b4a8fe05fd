"""`fullhouse top`: a running site in a terminal, as the live page shows it; for programs, once and as JSON."""

import json
import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from fullhouse.cli.banner import wants_colour
from fullhouse.observer.figures import figures
from fullhouse.observer.look import Look, Looker
from fullhouse.observer.watch import EVERY_S, WINDOW_S, site_name
from fullhouse.private_folder import runtime_folder
from fullhouse.supervisor import instances

_NARROWEST, _SHORTEST, _ENDLESS = 60, 10, 1000
_BAR = 40
# The ends of escape sequences: another screen, and back; home, and erase to the end.
_ENTER, _LEAVE, _HOME, _CLEAR_LINE, _CLEAR_REST = (
    "\x1b[?1049h\x1b[?25l",
    "\x1b[?25h\x1b[?1049l",
    "\x1b[H",
    "\x1b[K",
    "\x1b[J",
)
_COLOURS = tuple(f"\x1b[3{number}m" for number in (6, 4, 5, 3, 2, 1))
_RESET = "\x1b[0m"
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_FREE = "·"


def once(project: str, port: str | None, output_format: str) -> str:
    """One look, which takes a second. Raises NotRunningError."""
    instance = instances.find(runtime_folder(), project, port)
    with closing(Looker(instance)) as looker:
        first = looker.look()
        time.sleep(EVERY_S)
        found = figures(first, looker.look())
    site = site_name(instance.facts)
    if output_format == "json":
        return json.dumps({"site": site, **found}, indent=2)
    width = max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns)
    return "\n".join(screen(site, found, width, _ENDLESS, colour=wants_colour(sys.stdout)))


def follow(project: str, port: str | None) -> None:
    """Show the site until q or Ctrl-C. Raises NotRunningError."""
    instance = instances.find(runtime_folder(), project, port)
    with closing(Looker(instance)) as looker:
        _follow(looker, site_name(instance.facts))


def _follow(looker: Looker, site: str) -> None:
    looks: list[Look] = [looker.look()]
    with _other_screen():
        while True:
            looks = [*looks[-WINDOW_S:], looker.look()]
            width, height = shutil.get_terminal_size((80, 24))
            found = figures(looks[0], looks[-1])
            lines = screen(site, found, max(width, _NARROWEST), max(height, _SHORTEST), colour=wants_colour(sys.stdout))
            sys.stdout.write(_HOME + f"{_CLEAR_LINE}\n".join(lines) + _CLEAR_LINE + _CLEAR_REST)
            sys.stdout.flush()
            if select.select([sys.stdin], [], [], EVERY_S)[0] and os.read(sys.stdin.fileno(), 64)[:1] in (b"q", b""):
                return


@contextmanager
def _other_screen() -> Iterator[None]:
    """Keys come at once, and what was on the terminal comes back."""
    keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keyboard) if keyboard is not None else None
    sys.stdout.write(_ENTER)
    try:
        if keyboard is not None:
            tty.setcbreak(keyboard)
        yield
    finally:
        if keyboard is not None and before is not None:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def screen(site: str, found: Mapping[str, Any], width: int, height: int, *, colour: bool) -> list[str]:
    """The lines, at most `height` of them, each of at most `width` letters. found: see `observer.figures`."""
    head = [*_now(site, found), "", *_slots(found, colour=colour), ""]
    workers = _table(
        ("worker", "generation", "pid", "age", "memory", "threads", "waiting", "req/s"),
        [
            (
                *(f"worker {one['worker']}", one["generation"], one["pid"], _age(one["age_s"])),
                *(f"{one['memory'] >> 20} MiB", f"{one['busy']}/{one['threads']}", one["queued"]),
                f"{one['requests_per_s']:,.1f}",
            )
            for one in found["workers"]
        ]
        + [
            (f"{one['name']} {one['number']}", one["state"], one["pid"] or "-", _age(one["since_s"]), "", "", "", "")
            for one in found["processes"]
        ],
    )
    routes = _table(
        ("route", "req/s", "mean", "95 %", "queue", "conn", "SQL", "stmts", "share"),
        [
            (
                *(_shortened(one["route"] or "(no route)", width - 62), f"{one['requests_per_s']:,.1f}"),
                *map(_seconds, (one["mean_s"], one["p95_s"], one["queue_s"], one["connection_s"], one["statements_s"])),
                *(f"{one['statements']:.0f}", f"{one['share']:.0%}"),
            )
            for one in found["routes"]
        ],
    )
    room = max(2, (height - len(head) - 2) // 2)
    shown = workers[: max(room, height - len(head) - len(routes) - 2)]
    lines = [*head, *shown, "", *routes][:height]
    return [_cut(line, width) for line in lines]


def _cut(line: str, width: int) -> str:
    """Its first letters; colours take no room."""
    shown, room = "", width
    for part in _COLOUR.split(line):
        shown += part if part.startswith("\x1b") else part[:room]
        room -= 0 if part.startswith("\x1b") else min(room, len(part))
    return shown


def _now(site: str, found: Mapping[str, Any]) -> list[str]:
    generations = ", ".join(
        f"generation {one['number']} {one['state']}, {one['ready']} of {one['planned'] or '?'} workers"
        for one in found["generations"]
    )
    shed = found["shed_per_s"]
    durations, waits = found["durations_s"], found["waits_s"]
    why = f" ({', '.join(shed)})" if shed else ""
    return [
        f"{site}: {'stopping' if found['stopping'] else 'up ' + _age(found['uptime_s'])}; {generations}",
        f"requests {found['requests_per_s']:,.1f}/s   errors {found['errors_per_s']:,.1f}/s   not run "
        f"{sum(shed.values()):,.1f}/s{why}",
        f"time     {', '.join(f'{name[1:]} % {_seconds(value)}' for name, value in durations.items())}",
        f"threads  {_gauge(found['busy'], found['threads'])} {found['busy']} of {found['threads']} busy",
        f"waiting  {found['queued']} now, {found['peak_queued']} at most in ten seconds, oldest "
        f"{_seconds(found['oldest_wait_s'])}, 95 % {_seconds(waits['p95'])}",
    ]


def _fleet(found: Mapping[str, Any]) -> str:
    """The hosts in one line."""
    if found["trouble"]:
        return f"fleet    {found['trouble']}"
    hosts = [f"{one['address']} {one['held']} of {one['share']}{'+' if one['waits'] else ''}" for one in found["hosts"]]
    return f"{len(hosts)} hosts, {found['free']} free: {', '.join(hosts)}"


def _slots(found: Mapping[str, Any], *, colour: bool) -> list[str]:
    """A bar for each budget: every holder has a letter."""
    lines: list[str] = []
    for budget in found["budgets"]:
        held = sum(one["slots"] for one in budget["holders"])
        size = max(budget["slots"], held, 1)
        bar, legend, filled, drawn = "", [], 0, 0
        for number, one in enumerate(budget["holders"]):
            letter = chr(ord("a") + number % 26)
            filled += one["slots"]
            cells = max(1, round(_BAR * filled / size) - drawn)
            drawn += cells
            bar += _painted(letter * cells, number, colour=colour)
            legend.append(f"{_painted(letter, number, colour=colour)} {one['title']} {one['slots']}")
        waiting = sum(one.get("waiting", 0) for one in found["databases"] if one["alias"] in budget["aliases"])
        rest = _FREE * max(0, _BAR - drawn)
        lines.append(
            f"sessions {bar}{rest} {held} of {budget['slots']}, {waiting} wait: {', '.join(budget['aliases'])}"
        )
        lines.append(f"         {'  '.join(legend[:4])}{f'  and {len(legend) - 4} more' if len(legend) > 4 else ''}")
        if budget["fleet"]:
            lines.append(f"         {_fleet(budget['fleet'])}")
    return lines or ["sessions no database with a connection limit"]


def _painted(text: str, number: int, *, colour: bool) -> str:
    return f"{_COLOURS[number % len(_COLOURS)]}{text}{_RESET}" if colour else text


def _gauge(value: int, most: int) -> str:
    full = min(_BAR, round(_BAR * value / most)) if most else 0
    return "#" * full + _FREE * (_BAR - full)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _shortened(text: str, width: int) -> str:
    width = max(width, 12)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _age(value: float) -> str:
    if value < 60:
        return f"{value:.0f} s"
    minutes = int(value) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
