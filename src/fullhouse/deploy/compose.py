"""A project for Compose: the site, its database, nginx in front, and the observer's page. Pure.

nginx reaches the site by Unix sockets in a volume that both mount: a new container of the site has another address, and
nginx asks for a name only once.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fullhouse.deploy.deployment import Account, Deployment
from fullhouse.deploy.image import METRICS_PORT, MIGRATE, PORT, USER_ID, media, served_words, variables
from fullhouse.deploy.nginx import locations, upstream
from fullhouse.errors import ConfigurationError
from fullhouse.plan.plan import ServerPlan

SOCKETS = "/run/site"
SITE_SOCKET, OBSERVER_SOCKET = f"{SOCKETS}/http.sock", f"{SOCKETS}/observer.sock"
PUBLIC_PORT = 8080
# What superuser_reserved_connections leaves to administrators by default: the limit that was asked is without them.
_RESERVED_BY_POSTGRESQL = 3


class _Image(NamedTuple):
    """An official image of a database. variables: {name}, {user}: of the account; its password is not in the file.

    data: where the volume belongs, by the major version. command: {limit}: max_connections.
    """

    name: str
    variables: Mapping[str, str]
    password: str
    data: Callable[[int], str]
    command: tuple[str, ...]
    check: tuple[str, ...]


_IMAGES = {
    "PostgreSQL": _Image(
        "docker.io/library/postgres",
        {"POSTGRES_DB": "{name}", "POSTGRES_USER": "{user}"},
        "POSTGRES_PASSWORD",
        lambda major: "/var/lib/postgresql" + ("" if major >= 18 else "/data"),
        ("postgres", "-c", "max_connections={limit}"),
        # Over TCP: the server that the first start makes its tables with has none.
        ("pg_isready", "--quiet", "--host=127.0.0.1", "--username={user}", "--dbname={name}"),
    ),
    "MariaDB": _Image(
        "docker.io/library/mariadb",
        {"MARIADB_DATABASE": "{name}", "MARIADB_USER": "{user}", "MARIADB_RANDOM_ROOT_PASSWORD": "1"},
        "MARIADB_PASSWORD",
        lambda _: "/var/lib/mysql",
        ("--max-connections={limit}",),
        ("healthcheck.sh", "--connect", "--innodb_initialized"),
    ),
    "MySQL": _Image(
        "docker.io/library/mysql",
        {"MYSQL_DATABASE": "{name}", "MYSQL_USER": "{user}", "MYSQL_RANDOM_ROOT_PASSWORD": "1"},
        "MYSQL_PASSWORD",
        lambda _: "/var/lib/mysql",
        ("--max-connections={limit}",),
        ("mysqladmin", "ping", "--silent", "--host=127.0.0.1"),
    ),
}


def project(site: Deployment) -> str:
    """compose.yaml. Raises ConfigurationError where the site has no database server, or none that was asked."""
    if not site.servers:
        raise ConfigurationError(
            "No alias has an ENGINE of fullhouse on a database server, and SQLite's file would be lost with its "
            "container.\nChange the ENGINE, or run the image of fullhouse deploy docker with a volume for the file."
        )
    services = [_database(site, server, name) for name, server in _named(site).items()]
    needed = "".join(f"\n      {name}: {{condition: service_healthy}}" for name in _named(site))
    secrets = "".join(
        f"#   {name}.env: {_image(server)[0].password}=…, which the site's password for it has to be\n"
        for name, server in _named(site).items()
    )
    volumes = ["sockets", *_named(site), *media(site)]
    return f"""# fullhouse deploy compose {site.project}, beside the files of fullhouse deploy docker
#
# Secrets are in files that are not part of the image; nobody else may read them:
#   {site.project}.env: what the settings read, with {", ".join(_named(site))} as the host of the database
{secrets}#
#   docker compose up --build --detach --wait       the site is on port {PUBLIC_PORT}; its page on http://127.0.0.1:{METRICS_PORT}/

x-site: &site
  image: {site.project}
  env_file: [{site.project}.env]
  read_only: true
  tmpfs: [/tmp]
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]

services:
  site:
    <<: *site
    build: {{context: ., dockerfile: Containerfile}}
    command: {_plain(served_words(site, f"unix:{SITE_SOCKET}", f"127.0.0.1:{PORT}"))}
    environment:
{_environment(site)}    volumes: [sockets:{SOCKETS}{_mounted(site)}]
    # The plan is made for these; a worker computes on one processor.
    cpus: {site.workers}
    mem_limit: {site.memory >> 20}m
    # Above graceful_timeout, {site.graceful_timeout_s} s: it drains.
    stop_grace_period: {site.stop_s}s
    healthcheck:
      test: {_plain(["CMD", "python3", "-c", _READY])}
      interval: 5s
      timeout: 3s
      retries: 3
      start_period: {site.boot_timeout_s}s
    restart: unless-stopped
    depends_on:{needed}
      migrate: {{condition: service_completed_successfully}}

  migrate:
    <<: *site
    pull_policy: never
    command: {_plain(MIGRATE)}
    environment:
{_environment(site)}    depends_on:{needed}

{"".join(services)}  nginx:
    image: docker.io/library/nginx:stable
    user: "{USER_ID}:{USER_ID}"
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    # The page has no password: it is for those on this machine.
    ports: ["{PUBLIC_PORT}:{PUBLIC_PORT}", "127.0.0.1:{METRICS_PORT}:{METRICS_PORT}"]
    volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro", "sockets:{SOCKETS}"{_mounted(site, ":ro")}]
    restart: unless-stopped
    depends_on:
      site: {{condition: service_healthy}}

volumes:
{"".join(f"  {name}:{_OPTIONS if name == 'sockets' else ''}" + chr(10) for name in volumes)}"""


_READY = f"import urllib.request as ask; ask.urlopen('http://127.0.0.1:{PORT}/-/ready', timeout=2)"
# In memory, and its users' own whichever container comes first.
_OPTIONS = f' {{driver_opts: {{type: tmpfs, device: tmpfs, o: "uid={USER_ID},gid={USER_ID},mode=0750"}}}}'


def _named(site: Deployment) -> dict[str, ServerPlan]:
    """The servers by the names of their services."""
    if len(site.servers) == 1:
        return {"database": site.servers[0]}
    return {f"database-{server.limit.aliases[0]}": server for server in site.servers}


def _image(server: ServerPlan) -> tuple[_Image, str, int]:
    """The image, its tag, and the major version."""
    found = re.match(r"(PostgreSQL|MariaDB|MySQL) (\d+)(\.\d+)?", server.limit.server)
    if found is None:
        raise ConfigurationError(
            f"max_connections is given for {', '.join(server.limit.aliases)}, so its server was not asked for its "
            "version.\nLeave max_connections out here, and let the server be asked."
        )
    product, major, minor = found.groups()
    return _IMAGES[product], major if product == "PostgreSQL" else f"{major}{minor}", int(major)


def _database(site: Deployment, server: ServerPlan, service: str) -> str:
    image, tag, major = _image(server)
    account = site.accounts[server.limit.aliases[0]]
    if account.user in ("", "root"):
        raise ConfigurationError(
            f"USER of {server.limit.aliases[0]} is {account.user or 'not set'}: give the site a user of its own."
        )
    limit = server.limit.shared + (_RESERVED_BY_POSTGRESQL if image is _IMAGES["PostgreSQL"] else 0)
    variables = {name: _filled(value, account) for name, value in image.variables.items()}
    return f"""  {service}:
    image: {image.name}:{tag}
    command: {_plain([word.format(limit=limit) for word in image.command])}
    environment: {_plain(variables)}
    env_file: [{service}.env]
    volumes: [{service}:{image.data(major)}]
    shm_size: 256m
    stop_grace_period: 60s
    healthcheck:
      test: {_plain(["CMD", *(_filled(word, account) for word in image.check)])}
      interval: 2s
      timeout: 5s
      retries: 30
    restart: unless-stopped

"""


def _filled(text: str, account: Account) -> str:
    return text.replace("{name}", account.name).replace("{user}", account.user)


def _environment(site: Deployment) -> str:
    found = variables(site, f"unix:{OBSERVER_SOCKET}")
    return "".join(f"      {name}: {_plain(value)}\n" for name, value in sorted(found.items()))


def _plain(value: object) -> str:
    """As it is: Compose puts the caller's variables in place of $NAME."""
    return json.dumps(value).replace("$", "$$")


def _mounted(site: Deployment, mode: str = "") -> str:
    return "".join(f", {_plain(f'{name}:{folder}{mode}')}" for name, (_, folder) in media(site).items())


def nginx(site: Deployment) -> str:
    """nginx.conf: plain HTTP, since TLS ends in front of this machine, or is to be added here."""
    return f"""# fullhouse deploy compose {site.project}
pid /tmp/nginx.pid;
error_log stderr warn;
worker_processes auto;
events {{ worker_connections 4096; }}
http {{
include mime.types;
access_log off;
client_body_temp_path /tmp/body;
proxy_temp_path /tmp/proxy;
fastcgi_temp_path /tmp/fastcgi;
uwsgi_temp_path /tmp/uwsgi;
scgi_temp_path /tmp/scgi;
{upstream(site, f"unix:{SITE_SOCKET}")}

server {{
    listen {PUBLIC_PORT};
{locations(site, dict(media(site).values()))}}}

# The live page is for browsers of this machine, unless a page elsewhere has pointed its own name here.
server {{
    listen {METRICS_PORT};
    server_name localhost 127.0.0.1;
    location / {{
        proxy_pass http://unix:{OBSERVER_SOCKET};
    }}
}}
server {{
    listen {METRICS_PORT} default_server;
    location / {{
        return 403;
    }}
    location = /metrics {{
        proxy_pass http://unix:{OBSERVER_SOCKET};
    }}
}}
}}
"""
