"""Which statements change the session, or leave in it something that outlives them.

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


def _compiled(*patterns: str) -> re.Pattern[str]:
    """A space stands for a gap, or for none before a character that no word has, as in `SET"search_path"`.

    The gap is possessive: what was taken as a comment is not looked at again.
    """
    gap = f"""(?:{_GAP}++|(?=[^\\w\\s]))"""
    return re.compile("|".join(patterns).replace(" ", gap), re.IGNORECASE | re.DOTALL)


def _at_start(*patterns: str) -> re.Pattern[str]:
    return re.compile(f"{_GAP}*+(?:{_compiled(*patterns).pattern})", re.IGNORECASE | re.DOTALL)


# Statements by their first words. MariaDB runs IF, LOOP and the like outside procedures too.
_PROGRAMS = r"(?:IF|CASE|LOOP|REPEAT|WHILE|FOR)\b"
_STARTS = {
    "mysql": _at_start(
        r"(?:SET|FLUSH|BACKUP|PREPARE|EXECUTE|DEALLOCATE|HANDLER|USE|CALL|DO|XA|LOAD|BEGIN|START TRANSACTION)\b",
        r"GET (?:CURRENT )?DIAGNOSTICS\b",
        r"(?:CREATE|DROP) (?:OR REPLACE )?TEMPORARY\b",
        r"(?:UN)?LOCK\b",
        _PROGRAMS,
    ),
    "postgresql": _at_start(
        # SET LOCAL, SET CONSTRAINTS and SET TRANSACTION end with the transaction
        r"SET (?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b)",
        r"(?:RESET|PREPARE|EXECUTE|DEALLOCATE|DISCARD|LOAD|CALL|DO|BEGIN|START TRANSACTION)\b",
    ),
}

# What counts wherever it stands, each with a word that the text must have at all: so most texts need no look.
_ANYWHERE: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "mysql": {
        ":=": _compiled(":="),
        "@": _compiled(r"\bINTO @"),
        "LAST_INSERT_ID": _compiled(r"\bLAST_INSERT_ID\s*\(\s*[^\s)]"),
        "SQL_CALC_FOUND_ROWS": _compiled(r"\bSQL_CALC_FOUND_ROWS\b"),
        "CHAIN": _compiled(r"\bAND CHAIN\b"),
    },
    "postgresql": {
        # with a plain true as its last argument it ends with the transaction
        "SET_CONFIG": _compiled(r"""\bset_config\b(?!\s*\((?:[^()'"\\$/-]|'[^'\\]*')*,\s*true\s*\))"""),
        "PG_SETTINGS": _compiled(r'\bUPDATE (?:ONLY )?(?:"?pg_catalog"?\s*\.\s*)?"?pg_settings\b'),
        # not only at the start: EXPLAIN ANALYZE executes it
        "TEMP": _compiled(
            r"\bCREATE (?:OR REPLACE )?(?:(?:LOCAL|GLOBAL) )?TEMP(?:ORARY)?\b",
            r"\bINTO (?:(?:LOCAL|GLOBAL) )?TEMP(?:ORARY)?\b",
            r"\bpg_temp",
        ),
        "HOLD": _compiled(r"\bWITH HOLD\b"),
        "SETSEED": _compiled(r"\bsetseed\b"),
        "SET_LIMIT": _compiled(r"\bset_limit\b"),
        "DBLINK": _compiled(r"\bdblink_connect"),
        "CURRVAL": _compiled(r"\bcurrval\b"),
        "LASTVAL": _compiled(r"\blastval\b"),
        "CHAIN": _compiled(r"\bAND CHAIN\b"),
    },
}

# What a session holds until it lets go of it: each with the word that the text must have, what takes one, what releases
# one, and what releases all. Advisory locks of a transaction have xact in their names.
_HOLDS: Mapping[str, tuple[tuple[str, re.Pattern[str], re.Pattern[str], re.Pattern[str]], ...]] = {
    "mysql": (
        ("_LOCK", _compiled(r"\bGET_LOCK\b"), _compiled(r"\bRELEASE_LOCK\b"), _compiled(r"\bRELEASE_ALL_LOCKS\b")),
    ),
    "postgresql": (
        (
            "ADVISORY",
            _compiled(r"\bpg_(?:try_)?advisory_lock"),
            _compiled(r"\bpg_advisory_unlock(?!_all)"),
            _compiled(r"\bpg_advisory_unlock_all\b"),
        ),
        ("LISTEN", _compiled(r"\bLISTEN\b"), _compiled(r"\bUNLISTEN\b(?! \*)"), _compiled(r"\bUNLISTEN \*")),
    ),
}

# What is about the session itself, or about the statement before in it: in autocommit that may have been another one.
_ABOUT_SESSION = {
    "mysql": _compiled(
        r"\bSHOW (?:COUNT ?\( ?\* ?\) )?(?:WARNINGS|ERRORS)\b",
        r"@@(?:SESSION ?\. ?)?(?:identity|last_insert_id|warning_count|error_count)\b",
        r"\b(?:LASTVAL|LAST_INSERT_ID|CONNECTION_ID|ROW_COUNT|FOUND_ROWS) ?\(",
    ),
    "postgresql": _compiled(r"\bpg_backend_pid ?\("),
}

# The manual's "Statements That Cause an Implicit Commit", those that may be one, and COMMIT itself.
_MYSQL_COMMITS = _at_start(
    r"(?:ALTER|ANALYZE|BACKUP|BEGIN|CACHE|CALL|CHANGE|CHECK|CLONE|COMMIT|CREATE|DROP|EXECUTE|FLUSH|GRANT)\b",
    r"(?:IMPORT|INSTALL)\b",
    r"(?:LOAD|LOCK|OPTIMIZE|RENAME|REPAIR|RESET|REVOKE|START|STOP|TRUNCATE|UNINSTALL|UNLOCK|XA)\b",
    r"SET\b.*\b(?:autocommit|PASSWORD|ROLE)\b",
    r"SET STATEMENT\b",  # MariaDB: SET STATEMENT … FOR any statement
    r"ROLLBACK\b(?! (?:WORK )?TO\b)",
    _PROGRAMS,
)


class Effect(NamedTuple):
    """What a statement leaves in its session.

    changes: something that only a reset takes away. takes, releases: locks and channels, as many as the text names;
    releases is infinite where it releases all.
    """

    changes: bool = False
    takes: int = 0
    releases: float = 0


NOTHING = Effect()


def effect_on_session(sql: str, vendor: str) -> Effect:
    """What of the statement's effects on its session may outlive it. `vendor` is Django's: mysql, postgresql."""
    look = _looked_up if len(sql) <= LONGEST_REMEMBERED else _effect_on_session
    return look(sql, vendor)


def asks_about_session(sql: str, vendor: str) -> bool:
    """Whether the answer is about the session, or about what it did before."""
    return _ABOUT_SESSION[vendor].search(sql) is not None


def may_commit(sql: str) -> bool:
    """Whether MySQL may end the open transaction with this statement, so that the next one is in none."""
    return any(_MYSQL_COMMITS.match(sql, start) for start in _starts(sql))


def _effect_on_session(sql: str, vendor: str) -> Effect:
    upper = sql.upper()
    changes = any(_STARTS[vendor].match(sql, start) for start in _starts(sql)) or any(
        word in upper and pattern.search(sql) for word, pattern in _ANYWHERE[vendor].items()
    )
    takes, releases = 0, 0.0
    for word, take, release, release_all in _HOLDS[vendor]:
        if word in upper:
            takes += len(take.findall(sql))
            releases += math.inf if release_all.search(sql) else len(release.findall(sql))
    return Effect(changes, takes, releases) if changes or takes or releases else NOTHING


_looked_up = lru_cache(maxsize=4096)(_effect_on_session)


def _starts(sql: str) -> Iterator[int]:
    """Where statements may begin."""
    yield 0
    at = sql.find(";")
    while at >= 0:
        yield at + 1
        at = sql.find(";", at + 1)
