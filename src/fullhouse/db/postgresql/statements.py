"""What PostgreSQL's statements do to their session."""

from fullhouse.db.statements import Hold, Statements, at_start, compiled

STATEMENTS = Statements(
    starts=at_start(
        # SET LOCAL, SET CONSTRAINTS and SET TRANSACTION end with the transaction
        r"SET (?!LOCAL\b|CONSTRAINTS\b|TRANSACTION\b)",
        r"(?:RESET|PREPARE|EXECUTE|DEALLOCATE|DISCARD|LOAD|CALL|DO|BEGIN|START TRANSACTION)\b",
    ),
    anywhere={
        # with a plain true as its last argument it ends with the transaction
        "SET_CONFIG": compiled(r"""\bset_config\b(?!\s*\((?:[^()'"\\$/-]|'[^'\\]*')*,\s*true\s*\))"""),
        "PG_SETTINGS": compiled(r'\bUPDATE (?:ONLY )?(?:"?pg_catalog"?\s*\.\s*)?"?pg_settings\b'),
        # not only at the start: EXPLAIN ANALYZE executes it
        "TEMP": compiled(
            r"\bCREATE (?:OR REPLACE )?(?:(?:LOCAL|GLOBAL) )?TEMP(?:ORARY)?\b",
            r"\bINTO (?:(?:LOCAL|GLOBAL) )?TEMP(?:ORARY)?\b",
            r"\bpg_temp",
        ),
        "HOLD": compiled(r"\bWITH HOLD\b"),
        "SETSEED": compiled(r"\bsetseed\b"),
        "SET_LIMIT": compiled(r"\bset_limit\b"),
        "DBLINK": compiled(r"\bdblink_connect"),
        "CURRVAL": compiled(r"\bcurrval\b"),
        "LASTVAL": compiled(r"\blastval\b"),
        "CHAIN": compiled(r"\bAND CHAIN\b"),
    },
    # Advisory locks of a transaction have xact in their names.
    holds=(
        Hold(
            "ADVISORY",
            compiled(r"\bpg_(?:try_)?advisory_lock"),
            compiled(r"\bpg_advisory_unlock(?!_all)"),
            compiled(r"\bpg_advisory_unlock_all\b"),
        ),
        Hold("LISTEN", compiled(r"\bLISTEN\b"), compiled(r"\bUNLISTEN\b(?! \*)"), compiled(r"\bUNLISTEN \*")),
    ),
    about_session=compiled(r"\bpg_backend_pid ?\("),
)
