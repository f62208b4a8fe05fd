"""Which statements change the session, or leave in it something that outlives them.

Such a statement pins its connection: it stays with its request, and is reset or discarded before anyone else gets it.
The patterns look anywhere in the text, so a word in a literal or a comment may pin for nothing: that costs a reset,
never a leak. `tests/integration/test_hygiene.py` runs every entry against real servers and looks for its traces from
the next borrower. Sources: ProxySQL's list of multiplexing inhibitors, PgBouncer's feature table, and the manuals.

What no text can show (a stored function that changes the session) is documented in docs/pooling.md.
"""

import re
from functools import lru_cache

# A statement begins at the start of the text, after a semicolon, or after a comment.
_START = r"(?:^|;|\*/|\n)\s*"

_MYSQL = (
    # SET of anything: variables, names, roles, transaction characteristics of the session
    _START + r"SET\b",
    # user variables, wherever they are assigned
    r"@[`'\"\w.$]+\s*:=",
    r"\bINTO\s+@",
    _START + r"(?:CREATE|DROP)\s+(?:OR\s+REPLACE\s+)?TEMPORARY\b",
    _START + r"(?:UN)?LOCK\s+(?:TABLES?|INSTANCE)\b",
    _START + r"FLUSH\b",
    _START + r"BACKUP\b",
    r"\b(?:GET_LOCK|RELEASE_LOCK|RELEASE_ALL_LOCKS)\s*\(",
    r"\bLAST_INSERT_ID\s*\(\s*[^\s)]",
    r"\bSQL_CALC_FOUND_ROWS\b",
    _START + r"(?:PREPARE|EXECUTE|DEALLOCATE|HANDLER|USE|CALL|DO|XA|LOAD|BEGIN|START\s+TRANSACTION)\b",
)

_POSTGRESQL = (
    # SET LOCAL, SET CONSTRAINTS and SET TRANSACTION end with the transaction
    _START + r"SET\s+(?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b)",
    _START + r"RESET\b",
    # with a literal true as its last argument it ends with the transaction
    r"\bset_config\s*\((?![^()]*,\s*true\s*\))",
    _START + r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:LOCAL|GLOBAL)\s+)?TEMP(?:ORARY)?\b",
    r"\bINTO\s+(?:(?:LOCAL|GLOBAL)\s+)?TEMP(?:ORARY)?\b",
    r"\bpg_temp\b",
    # advisory locks of the session; those of the transaction have xact in their names
    r"\bpg_(?:try_)?advisory_(?:lock|unlock)\w*\s*\(",
    r"\bWITH\s+HOLD\b",
    r"\b(?:setseed|dblink_connect\w*|currval|lastval)\s*\(",
    _START + r"(?:LISTEN|UNLISTEN|PREPARE|EXECUTE|DEALLOCATE|DISCARD|LOAD|CALL|DO|BEGIN|START\s+TRANSACTION)\b",
)

_PATTERNS = {
    "mysql": re.compile("|".join(_MYSQL), re.IGNORECASE),
    "postgresql": re.compile("|".join(_POSTGRESQL), re.IGNORECASE),
}


@lru_cache(maxsize=4096)
def changes_session(sql: str, vendor: str) -> bool:
    """Whether the statement's effects on its session may outlive it. `vendor` is Django's: mysql, postgresql."""
    return _PATTERNS[vendor].search(sql) is not None
