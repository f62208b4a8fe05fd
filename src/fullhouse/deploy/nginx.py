"""nginx in front of the site: what it must know of the server behind it."""

from collections.abc import Mapping

from fullhouse.deploy.deployment import Deployment
from fullhouse.deploy.words import in_quotes

# A client that waits for the last answer before our timeout ends its worker.
PROXY_MARGIN_S = 5
# What nginx waits for a server that has no timeout.
NO_TIMEOUT_S = 3600


def nginx(site: Deployment) -> str:
    """A site: TLS in front, static and media files, everything else to the server."""
    return f"""# fullhouse deploy nginx {site.project}
{upstream(site, site.addresses[0])}

server {{
    listen 443 ssl;
    server_name _;
    ssl_certificate /etc/ssl/certs/{site.project}.pem;
    ssl_certificate_key /etc/ssl/private/{site.project}.key;
{locations(site, site.files)}}}
"""


def upstream(site: Deployment, address: str) -> str:
    return f"""upstream {site.project} {{
    server {in_quotes(address)} fail_timeout=0;
    keepalive 32;
    # Below our keepalive, {site.keepalive_s} s: nginx lets go first, and meets no closing one.
    keepalive_timeout {max(1, site.keepalive_s - PROXY_MARGIN_S)}s;
}}"""


def locations(site: Deployment, files: Mapping[str, str]) -> str:
    """What follows `listen` in a server block. files: folders by URL."""
    wait = site.timeout_s + PROXY_MARGIN_S if site.timeout_s else NO_TIMEOUT_S
    return f"""    # As our max_body: what is longer, neither of us takes.
    client_max_body_size {site.max_body or 0};
{_folders(files)}
    location / {{
        proxy_pass {"https" if site.has_tls else "http"}://{site.project};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        # What a client says of these is not passed on.
        proxy_set_header X-Forwarded-Host "";
        proxy_set_header X-Forwarded-Port "";
        proxy_set_header Forwarded "";
        # Headers of a response, such as many cookies: nginx answers 502 for more.
        proxy_buffer_size 32k;
        proxy_buffers 8 32k;
        {_buffering(site)}
        # When nginx took the request: how long it waited counts from here.
        proxy_set_header X-Request-Start "t=$msec";
        # A request reaches us complete, so that a slow client holds nothing.
        proxy_request_buffering on;
        proxy_connect_timeout 5s;
        # Above our timeout, {site.timeout_s} s: we answer first.
        proxy_read_timeout {wait}s;
        proxy_send_timeout {wait}s;
    }}
"""


def _buffering(site: Deployment) -> str:
    if site.has_own_worker:
        why, value = "Events are passed on as they come: our worker needs no help with clients that read slowly.", "off"
    else:
        why, value = "A client that reads slowly holds no thread. A stream of events sends X-Accel-Buffering: no.", "on"
    return f"# {why}\n        proxy_buffering {value};"


def _folders(files: Mapping[str, str]) -> str:
    return "".join(
        f"""
    location {in_quotes(url)} {{
        alias {in_quotes(folder.rstrip("/") + "/")};
        expires 1h;
    }}
"""
        for url, folder in files.items()
    )
