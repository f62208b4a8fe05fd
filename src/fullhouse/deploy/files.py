"""The text of each file, and why each value is what it is. Pure: who writes it where is the caller's business."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# What the supervisor needs beyond graceful_timeout to end what is left (`supervisor.generations`), twice.
STOP_MARGIN_S = 15
# A client that waits for the last answer before our timeout ends its worker.
PROXY_MARGIN_S = 5


@dataclass(frozen=True)
class Deployment:
    """command: the words of `fullhouse serve`. address: HOST:PORT or unix:PATH. *_s: as in the settings.

    files: folders by URL that nginx serves itself: Django's static and media files.
    """

    project: str
    user: str
    folder: str
    command: str
    address: str
    graceful_timeout_s: int
    boot_timeout_s: int
    timeout_s: int
    keepalive_s: int
    log: str
    files: Mapping[str, str]


def supervisord(site: Deployment) -> str:
    """A [program:…] section."""
    return f"""; fullhouse deploy supervisord {site.project}
[program:{site.project}]
command={site.command}
directory={site.folder}
user={site.user}
autostart=true
autorestart=true
startretries=3
; It counts as started once the process has lived so long.
startsecs=2
; TERM drains; our graceful_timeout is {site.graceful_timeout_s} s, and the rest is ended after it.
stopsignal=TERM
stopwaitsecs={site.graceful_timeout_s + STOP_MARGIN_S}
; A TERM to the workers as well would cut the drain short; a KILL must reach everything.
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={site.log}
; The same rotation as that of fullhouse start.
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=20
"""


def systemd_service(site: Deployment) -> str:
    """NAME.service, beside NAME.socket."""
    return f"""# fullhouse deploy systemd {site.project}: {site.project}.service
[Unit]
Description={site.project} under fullhouse
After=network.target
Requires={site.project}.socket

[Service]
# It tells when all workers are ready; the process that systemd started stays the main one through every reload.
Type=notify
NotifyAccess=main
User={site.user}
WorkingDirectory={site.folder}
ExecStart={site.command}
ExecReload=/bin/kill -HUP $MAINPID
# TERM goes to the supervisor alone, which drains; KILL goes to all.
KillMode=mixed
# Above boot_timeout, {site.boot_timeout_s} s, and graceful_timeout, {site.graceful_timeout_s} s.
TimeoutStartSec={site.boot_timeout_s + STOP_MARGIN_S}
TimeoutStopSec={site.graceful_timeout_s + STOP_MARGIN_S}
WatchdogSec=30
Restart=always
RestartSec=1
LimitNOFILE=65536
# Hardening. What the site must write outside its folder is added with ReadWritePaths.
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""


def systemd_socket(site: Deployment) -> str:
    """NAME.socket: the listening socket outlives a restart of the service, and its queue waits meanwhile."""
    return f"""# fullhouse deploy systemd {site.project}: {site.project}.socket
[Unit]
Description=Listening socket of {site.project}

[Socket]
ListenStream={site.address.removeprefix("unix:")}
# As many as may wait in our own backlog.
Backlog=2048

[Install]
WantedBy=sockets.target
"""


def nginx(site: Deployment) -> str:
    """A site: TLS in front, static and media files, everything else to the server."""
    upstream = f"unix:{site.address.removeprefix('unix:')}" if site.address.startswith("unix:") else site.address
    wait = site.timeout_s + PROXY_MARGIN_S
    return f"""# fullhouse deploy nginx {site.project}
upstream {site.project} {{
    server {upstream} fail_timeout=0;
    keepalive 32;
    # Below our keepalive, {site.keepalive_s} s: nginx lets go first, and meets no closing one.
    keepalive_timeout {max(1, site.keepalive_s - PROXY_MARGIN_S)}s;
}}

server {{
    listen 443 ssl;
    server_name _;
    ssl_certificate /etc/ssl/certs/{site.project}.pem;
    ssl_certificate_key /etc/ssl/private/{site.project}.key;
    client_max_body_size 20m;
{_files(site)}
    location / {{
        proxy_pass http://{site.project};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        # When nginx took the request: how long it waited counts from here.
        proxy_set_header X-Request-Start "t=$msec";
        # A request reaches us complete, so that a slow client holds nothing.
        proxy_request_buffering on;
        proxy_connect_timeout 5s;
        # Above our timeout, {site.timeout_s} s: we answer first.
        proxy_read_timeout {wait}s;
        proxy_send_timeout {wait}s;
    }}
}}
"""


def _files(site: Deployment) -> str:
    return "".join(
        f"""
    location {url} {{
        alias {folder.rstrip("/")}/;
        expires 1h;
    }}
"""
        for url, folder in site.files.items()
    )


def logrotate(site: Deployment) -> str:
    """For a log that the server writes by --error-log or --access-log; the one of `start` rotates itself."""
    return f"""# fullhouse deploy logrotate {site.project}
{site.log} {{
    size 20M
    rotate 20
    missingok
    notifempty
    compress
    delaycompress
    # The one who writes keeps the file open: it is copied and cut, and nothing must be told.
    copytruncate
}}
"""


FILES: Mapping[str, Mapping[str, Callable[[Deployment], str]]] = MappingProxyType(
    {
        "supervisord": {"{project}.conf": supervisord},
        "systemd": {"{project}.service": systemd_service, "{project}.socket": systemd_socket},
        "nginx": {"{project}.conf": nginx},
        "logrotate": {"{project}": logrotate},
    }
)


def write(kind: str, site: Deployment) -> dict[str, str]:
    """The files of one kind: their text by name."""
    return {name.format(project=site.project): text(site) for name, text in FILES[kind].items()}
