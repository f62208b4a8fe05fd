"""PgBouncer between many hosts and PostgreSQL: it has the budget then, and the hosts have its clients. Pure."""

from fullhouse.deploy.deployment import Deployment
from fullhouse.errors import ConfigurationError
from fullhouse.plan.plan import ServerPlan

PORT = 6432
# Each costs PgBouncer 2 kB and a descriptor.
MOST_CLIENTS = 10_000


def pgbouncer(site: Deployment) -> str:
    """pgbouncer.ini, with the settings of the site that belong to it. Raises ConfigurationError."""
    server, aliases = _server(site)
    names = ", ".join(aliases)
    entries = {site.accounts[alias].name: site.accounts[alias] for alias in aliases}
    databases = "\n".join(f"{name} = host={one.host} port={one.port} dbname={name}" for name, one in entries.items())
    users = ", ".join(sorted({f"'{one.user}'" for one in entries.values()}))
    return f"""; fullhouse deploy pgbouncer {site.project}: for more hosts than the budget of {names} has room for
;
; The pooler has the budget, {server.budget} sessions. Each host has clients of it, as many as it runs requests at once,
; {site.requests} for each alias: it needs not know how many others there are. In the site's settings:
;
;   DATABASES: for {names}, the pooler's "HOST", "PORT": {PORT}, "DISABLE_SERVER_SIDE_CURSORS": True
;   FULLHOUSE = {{"hosts": 1, "max_connections": {site.requests * len(aliases)}, "reserve": 0}}
;
; The passwords, as PostgreSQL keeps them; its administrator may read them:
;
;   psql --no-align --tuples-only > /etc/pgbouncer/userlist.txt <<'SQL'
;   SELECT concat('"', usename, '" "', passwd, '"') FROM pg_shadow WHERE usename IN ({users});
;   SQL
[databases]
{databases}

[pgbouncer]
listen_addr = *
listen_port = {PORT}
auth_type = scram-sha-256
auth_file = /etc/pgbouncer/userlist.txt
; A session belongs to a client for a transaction. What a request sets beyond that would reach another's: use SET LOCAL.
pool_mode = transaction
; All pools of all databases here together: the budget.
{_sizes(server.budget, list(entries))}
max_client_conn = {MOST_CLIENTS}
; As long as a worker waits for anything: who waits longer has been given up.
query_wait_timeout = {site.timeout_s or 120}
; A dead server is noticed, and so is a host that is gone.
server_connect_timeout = 5
; By default it does not try again for 15 s; our pools do at least twice a second.
server_login_retry = 1
tcp_keepidle = 30
tcp_keepintvl = 10
tcp_keepcnt = 3
"""  # noqa: S608  for a person to run


def _server(site: Deployment) -> tuple[ServerPlan, list[str]]:
    """The only server of PostgreSQL, and its aliases that are ours."""
    found = [server for server in site.servers if site.accounts[server.limit.pooled[0]].vendor == "postgresql"]
    if len(found) != 1:
        others = [f"{server.budget} sessions for {', '.join(server.limit.pooled)}" for server in site.servers]
        raise ConfigurationError(
            f"PgBouncer stands in front of one PostgreSQL server, and the ENGINEs of fullhouse here use {len(found)}.\n"
            + (f"For another pooler, such as ProxySQL, the plan's budgets are: {'; '.join(others)}." if others else "")
        )
    return found[0], list(found[0].limit.pooled)


def _sizes(budget: int, databases: list[str]) -> str:
    """max_db_connections bounds one database: several have a part each."""
    part = budget // len(databases)
    return f"default_pool_size = {part}\nmax_db_connections = {part}"
