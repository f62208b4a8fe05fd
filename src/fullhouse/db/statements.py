"""Which statements change the session, or leave in it something that outlives them; the engines bring their tables.

Such a statement pins its connection: it stays with its request, and is reset or discarded before anyone else gets it.
Locks of the session, and PostgreSQL's channels, pin it as long as the session holds one.
The patterns look anywhere in the text, so a word in a literal or a comment may pin for nothing: that costs a reset,
never a leak. `tests/integration/test_hygiene.py` runs a table of statements against real servers and looks for their
traces from the next borrower. Sources: ProxySQL's list of multiplexing inhibitors, PgBouncer's feature table, and the
manuals.

What no text can show (a stored function that changes the session) is documented in docs/concepts/pooling.md.
"""

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

LONGEST_REMEMBERED = 4096
"""Verdicts on longer statements (bulk inserts) are not kept: the texts would fill the memory."""

# Between two words stand spaces and comments; MySQL executes what stands in /*! … */ and /*M! … */.
_GAP = r"(?:\s|/\*M?!\d*|/\*(?!M?!).*?\*/|\*/|--[^\r\n]*|\#[^\r\n]*)"


def compiled(*patterns: str) -> re.Pattern[str]:
    """The pattern of any of these.

    A space stands for a gap, or for none before a character that no word has, as in `SET"search_path"`.

    The gap is possessive: what was taken as a comment is not looked at again.
    """
    gap = f"""(?:{_GAP}++|(?=[^\\w\\s]))"""
    return re.compile("|".join(patterns).replace(" ", gap), re.IGNORECASE | re.DOTALL)


def at_start(*patterns: str) -> re.Pattern[str]:
    return re.compile(f"{_GAP}*+(?:{compiled(*patterns).pattern})", re.IGNORECASE | re.DOTALL)


class Effect(NamedTuple):
    """What a statement leaves in its session.

    changes: something that only a reset takes away. takes, releases: locks and channels, as many as the text names;
    releases is infinite where it releases all.
    """

    changes: bool = False
    takes: int = 0
    releases: float = 0


NOTHING = Effect()


class Hold(NamedTuple):
    """Something that a session holds until it lets go of it.

    word: the text must have it, in upper case. takes, releases: each match is one. releases_all: a match releases all.
    """

    word: str
    takes: re.Pattern[str]
    releases: re.Pattern[str]
    releases_all: re.Pattern[str]


class Statements:
    """What one vendor's statements do to their session.

    starts: by their first words, those that change it. anywhere: what changes it wherever it stands, each with a word
    that the text must have at all, in upper case, so that most texts need no look. holds: locks and channels.
    about_session: what asks about the session itself, or about the statement before in it.
    """

    def __init__(
        self,
        *,
        starts: re.Pattern[str],
        anywhere: Mapping[str, re.Pattern[str]],
        holds: tuple[Hold, ...],
        about_session: re.Pattern[str],
    ) -> None:
        self._starts = starts
        self._anywhere = anywhere
        self._holds = holds
        self._about_session = about_session
        self._looked_up = lru_cache(maxsize=4096)(self._look)

    def effect(self, sql: str) -> Effect:
        """What of the statement's effects on its session may outlive it."""
        return self._looked_up(sql) if len(sql) <= LONGEST_REMEMBERED else self._look(sql)

    def asks_about_session(self, sql: str) -> bool:
        """Whether the answer is about the session, or about what it did before."""
        return self._about_session.search(sql) is not None

    def _look(self, sql: str) -> Effect:
        upper = sql.upper()
        changes = begins_with(self._starts, sql) or any(
            word in upper and pattern.search(sql) for word, pattern in self._anywhere.items()
        )
        takes, releases = 0, 0.0
        for hold in self._holds:
            if hold.word in upper:
                takes += len(hold.takes.findall(sql))
                releases += math.inf if hold.releases_all.search(sql) else len(hold.releases.findall(sql))
        return Effect(changes, takes, releases) if changes or takes or releases else NOTHING


def begins_with(pattern: re.Pattern[str], sql: str) -> bool:
    """Whether a statement of the text begins so."""
    return any(pattern.match(sql, start) for start in _starts(sql))


def _starts(sql: str) -> Iterator[int]:
    """Where statements may begin."""
    yield 0
    at = sql.find(";")
    while at >= 0:
        yield at + 1
        at = sql.find(";", at + 1)
