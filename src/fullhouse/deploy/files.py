"""The text of each file, and why each value is what it is. Pure: who writes it where is the caller's business."""

import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fullhouse.deploy import compose, kubernetes
from fullhouse.deploy.deployment import STOP_MARGIN_S, Deployment
from fullhouse.deploy.image import containerfile, ignored
from fullhouse.deploy.monitoring import dashboard, rules, scrape
from fullhouse.deploy.nginx import nginx
from fullhouse.deploy.pgbouncer import pgbouncer
from fullhouse.deploy.words import in_quotes, one_line

QUOTE = '"'
# supervisord expands the names of logs twice.
PERCENT = "%"


def _for_supervisord(text: str, *, never: str = "") -> str:
    """It expands %(…)s, and takes what follows " ;" as a comment."""
    return one_line(text, never=f";{never}").replace("%", "%%")


def _for_systemd(text: str) -> str:
    """It expands %…"""
    return one_line(text).replace("%", "%%")


def _systemd_word(word: str) -> str:
    """A word of ExecStart or Environment: quoted, where it must be."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"')
    return _for_systemd(f'"{plain}"' if word != shlex.quote(word) else word)


def supervisord(site: Deployment) -> str:
    """A [program:…] section."""
    pairs = [f'{name}="{_for_supervisord(value, never=QUOTE)}"' for name, value in site.environment.items()]
    return f"""; fullhouse deploy supervisord {site.project}
[program:{site.project}]
command={_for_supervisord(shlex.join(site.command))}
directory={_for_supervisord(site.folder)}
environment={",".join(pairs)}
user={site.user}
autostart=true
autorestart=true
startretries=3
; It counts as started once the process has lived so long.
startsecs=2
; TERM drains; our graceful_timeout is {site.graceful_timeout_s} s{_companions(site)}, and the rest is ended after it.
stopsignal=TERM
stopwaitsecs={site.stop_s}
; A TERM to the workers as well would cut the drain short; a KILL must reach everything.
stopasgroup=false
killasgroup=true
redirect_stderr=true
; Its folder must be there: supervisord makes none.
stdout_logfile={_for_supervisord(site.log, never=PERCENT)}
; The same rotation as that of fullhouse start.
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=20
"""


def _companions(site: Deployment) -> str:
    return f" ({site.companions_s} s for the processes beside the web)" if site.companions_s else ""


def systemd_service(site: Deployment) -> str:
    """NAME.service, beside NAME.socket."""
    pairs = [f"{name}={value}" for name, value in site.environment.items()]
    variables = "".join(f"Environment={_systemd_word(pair)}\n" for pair in pairs)
    return f"""# fullhouse deploy systemd {site.project}: {site.project}.service
[Unit]
Description={site.project} under fullhouse
After=network.target
Requires={site.project}.socket

[Service]
# It notifies systemd when all workers are ready. Its main process stays the same through every reload.
Type=notify
NotifyAccess=main
User={site.user}
WorkingDirectory={_for_systemd(site.folder)}
{variables}ExecStart={" ".join(_systemd_word(word).replace("$", "$$") for word in site.command)}
ExecReload=/bin/kill -HUP $MAINPID
# TERM goes to the supervisor alone, which drains; KILL goes to all.
KillMode=mixed
# Above boot_timeout, {site.boot_timeout_s} s, and graceful_timeout, {site.graceful_timeout_s} s{_companions(site)}.
TimeoutStartSec={site.boot_timeout_s + STOP_MARGIN_S}
TimeoutStopSec={site.stop_s}
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
    streams = "\n".join(f"ListenStream={_for_systemd(one.removeprefix('unix:'))}" for one in site.addresses)
    return f"""# fullhouse deploy systemd {site.project}: {site.project}.socket
[Unit]
Description=Listening socket of {site.project}

[Socket]
{streams}
{_socket_owner(site)}# As many as may wait in our own backlog.
Backlog={site.backlog}

[Install]
WantedBy=sockets.target
"""


def _socket_owner(site: Deployment) -> str:
    """Who may connect to a Unix socket: systemd would let everybody."""
    if not any(address.startswith("unix:") for address in site.addresses):
        return ""
    return f"""SocketUser={site.user}
SocketMode=0660
# The group that nginx runs in, which connects to the socket.
SocketGroup=www-data
"""


def logrotate(site: Deployment) -> str:
    """For a log that the server writes by --error-log or --access-log; the one of `start` rotates itself."""
    return f"""# fullhouse deploy logrotate {site.project}
{in_quotes(site.log)} {{
    size 20M
    rotate 20
    missingok
    notifempty
    compress
    delaycompress
    # The writer keeps the file open: logrotate copies and truncates it, and no signal is needed.
    copytruncate
}}
"""


# Another user has to read these: nginx in its container.
WITHOUT_SECRETS = ("nginx.conf",)

FILES: Mapping[str, Mapping[str, Callable[[Deployment], str]]] = MappingProxyType(
    {
        "supervisord": {"{project}.conf": supervisord},
        "systemd": {"{project}.service": systemd_service, "{project}.socket": systemd_socket},
        "nginx": {"{project}.conf": nginx},
        "logrotate": {"{project}": logrotate},
        "pgbouncer": {"pgbouncer.ini": pgbouncer},
        "compose": {"compose.yaml": compose.project, "nginx.conf": compose.nginx},
        "docker": {"Containerfile": containerfile, ".containerignore": ignored},
        "kubernetes": {
            "kustomization.yaml": kubernetes.kustomization,
            "deployment.yaml": kubernetes.deployment,
            "service.yaml": kubernetes.service,
            "disruption.yaml": kubernetes.disruption,
            "autoscaler.yaml": kubernetes.autoscaler,
            "migrate.yaml": kubernetes.migrate,
        },
        "prometheus": {"{project}.scrape.yml": scrape, "{project}.rules.yml": rules},
        "grafana": {"{project}.json": dashboard},
    }
)


def write(kind: str, site: Deployment) -> dict[str, str]:
    """The files of one kind: their text by name."""
    return {name.format(project=site.project): text(site) for name, text in FILES[kind].items()}
