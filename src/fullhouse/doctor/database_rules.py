"""What the database servers grant, against what the plan uses. Pure: the servers were asked by the plan."""

from collections.abc import Iterator

from fullhouse.doctor.finding import Finding
from fullhouse.plan.limits import Limit
from fullhouse.plan.plan import ServerPlan


def of_server(server: ServerPlan, lifetime_s: float | None) -> Iterator[Finding]:
    """lifetime_s: the longest that a pool on it keeps a connection; None: for ever, or it has none."""
    limit = server.limit
    aliases = ", ".join(limit.aliases)
    if limit.others is not None and limit.others > server.reserve:
        yield Finding(
            "E301",
            f"{aliases}: other users hold {limit.others} sessions now, and reserve leaves them {server.reserve}: "
            f"together with the budget of {server.budget} that is more than the limit of {limit.limit}.",
            f"Raise reserve to {limit.others} or more, or the server's limit.",
        )
    if limit.ours and limit.ours > server.budget + (server.most_hosts or 0):
        yield Finding(
            "W302",
            f"{aliases}: this user holds {limit.ours} sessions now, and the budget is {server.budget}: a program "
            "that is not counted uses the same account.",
            "Give it an account of its own, or an engine of fullhouse on this host.",
        )
    yield from of_idle_limit(limit, lifetime_s)
    yield from of_account(server)


def of_account(server: ServerPlan) -> Iterator[Finding]:
    """In a fleet, what bounds an opener that something stops between its permission and its connect."""
    if server.most_hosts is None:
        return
    most = server.budget + server.most_hosts
    caps = [number for name, number in server.limit.parts[1:] if "account" in name.lower() or "role" in name]
    if not caps or min(caps) > most:
        yield Finding(
            "I305",
            f"{', '.join(server.limit.aliases)}: nothing but the fleet's own rules keeps this user below the budget of "
            f"{server.budget} sessions and {server.most_hosts} keepers: a process that was stopped at the wrong moment "
            "could open one more.",
            f"Where you have the right, ALTER ROLE … CONNECTION LIMIT {most} (PostgreSQL), or ALTER USER … WITH "
            f"MAX_USER_CONNECTIONS {most} (MySQL).",
        )


def of_idle_limit(limit: Limit, lifetime_s: float | None) -> Iterator[Finding]:
    """lifetime_s: as above."""
    aliases = ", ".join(limit.aliases)
    timeout_s = limit.wait_timeout_s
    if timeout_s is not None and limit.pooled and (lifetime_s is None or timeout_s < lifetime_s):
        yield Finding(
            "I303",
            f"{aliases}: the server ends sessions that are idle for {timeout_s} s, before the pool would replace them "
            f"({'never' if lifetime_s is None else f'{lifetime_s:g} s'}): the pool parts with them earlier.",
            "Nothing needs to be done; raise the server's limit if connecting is slow.",
        )


def of_port(alias: str, asked: str, told: str) -> Iterator[Finding]:
    """asked: the port that the settings name. told: the one that the server says it listens on."""
    if asked != told:
        yield Finding(
            "W304",
            f"{alias}: the settings name port {asked}, and the server says it listens on {told}: something stands in "
            "between, such as PgBouncer. The limit that was asked is the server's; the pooler has one of its own.",
            "Give the pooler's with max_connections, and read docs/concepts/pooling.md on pooling modes.",
        )
