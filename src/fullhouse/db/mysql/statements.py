"""What statements of MySQL and MariaDB do to their session, and which ones commit."""

from fullhouse.db.statements import Hold, Statements, at_start, begins_with, compiled

# MariaDB runs IF, LOOP and the like outside procedures too.
_PROGRAMS = r"(?:IF|CASE|LOOP|REPEAT|WHILE|FOR)\b"

STATEMENTS = Statements(
    starts=at_start(
        r"(?:SET|FLUSH|BACKUP|PREPARE|EXECUTE|DEALLOCATE|HANDLER|USE|CALL|DO|XA|LOAD|BEGIN|START TRANSACTION)\b",
        r"GET (?:CURRENT )?DIAGNOSTICS\b",
        r"(?:CREATE|DROP) (?:OR REPLACE )?TEMPORARY\b",
        r"(?:UN)?LOCK\b",
        _PROGRAMS,
    ),
    anywhere={
        ":=": compiled(":="),
        "@": compiled(r"\bINTO @"),
        "LAST_INSERT_ID": compiled(r"\bLAST_INSERT_ID\s*\(\s*[^\s)]"),
        "SQL_CALC_FOUND_ROWS": compiled(r"\bSQL_CALC_FOUND_ROWS\b"),
        "CHAIN": compiled(r"\bAND CHAIN\b"),
    },
    holds=(
        Hold("_LOCK", compiled(r"\bGET_LOCK\b"), compiled(r"\bRELEASE_LOCK\b"), compiled(r"\bRELEASE_ALL_LOCKS\b")),
    ),
    about_session=compiled(
        r"\bSHOW (?:COUNT ?\( ?\* ?\) )?(?:WARNINGS|ERRORS)\b",
        r"@@(?:SESSION ?\. ?)?(?:identity|last_insert_id|warning_count|error_count)\b",
        r"\b(?:LASTVAL|LAST_INSERT_ID|CONNECTION_ID|ROW_COUNT|FOUND_ROWS) ?\(",
    ),
)

# The manual's "Statements That Cause an Implicit Commit", those that may be one, and COMMIT itself.
_COMMITS = at_start(
    r"(?:ALTER|ANALYZE|BACKUP|BEGIN|CACHE|CALL|CHANGE|CHECK|CLONE|COMMIT|CREATE|DROP|EXECUTE|FLUSH|GRANT)\b",
    r"(?:IMPORT|INSTALL)\b",
    r"(?:LOAD|LOCK|OPTIMIZE|RENAME|REPAIR|RESET|REVOKE|START|STOP|TRUNCATE|UNINSTALL|UNLOCK|XA)\b",
    r"SET\b.*\b(?:autocommit|PASSWORD|ROLE)\b",
    r"SET STATEMENT\b",  # MariaDB: SET STATEMENT … FOR any statement
    r"ROLLBACK\b(?! (?:WORK )?TO\b)",
    _PROGRAMS,
)


def may_commit(sql: str) -> bool:
    """Whether the server may end the open transaction with this statement, so that the next one is in none."""
    return begins_with(_COMMITS, sql)
