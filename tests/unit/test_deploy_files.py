"""What the files say where the facts are unusual; tests/integration/test_deploy.py has the real programs read them."""

from dataclasses import replace
from typing import Any

import pytest

from fullhouse.deploy.deployment import Account, Deployment
from fullhouse.deploy.files import write
from fullhouse.errors import ConfigurationError, PlanError
from fullhouse.plan.limits import Limit
from fullhouse.plan.plan import ServerPlan

SITE = Deployment(
    project="mysite",
    user="web",
    folder="/srv/my site",
    command=["/venv/bin/python", "-m", "fullhouse", "serve", "mysite", "--access-log-format=%(h)s $HOME"],
    environment={"DJANGO_SETTINGS_MODULE": "mysite.prod", "FULLHOUSE_WORKERS": "7"},
    addresses=["127.0.0.1:8000", "unix:/run/my site.sock"],
    backlog=99,
    has_tls=False,
    graceful_timeout_s=30,
    companions_s=0,
    stop_delay_s=120,
    boot_timeout_s=60,
    timeout_s=30,
    keepalive_s=75,
    max_body=1 << 30,
    has_own_worker=True,
    log="/var/log/my site.log",
    files={"/static/": "/srv/my site; 100%/static"},
    observe=None,
)


def lines(kind: str, site: Deployment = SITE) -> list[str]:
    return [line.strip() for text in write(kind, site).values() for line in text.splitlines()]


def test_words_reach_the_server_as_they_were() -> None:
    found = lines("supervisord")
    assert "command=/venv/bin/python -m fullhouse serve mysite '--access-log-format=%%(h)s $HOME'" in found
    assert 'environment=DJANGO_SETTINGS_MODULE="mysite.prod",FULLHOUSE_WORKERS="7"' in found
    found = lines("systemd")
    assert 'ExecStart=/venv/bin/python -m fullhouse serve mysite "--access-log-format=%%(h)s $$HOME"' in found
    assert "Environment=DJANGO_SETTINGS_MODULE=mysite.prod" in found
    assert "Environment=FULLHOUSE_WORKERS=7" in found


def test_paths_have_quotes_where_they_need_them() -> None:
    assert 'alias "/srv/my site; 100%/static/";' in lines("nginx")
    assert '"/var/log/my site.log" {' in lines("logrotate")


def server(slots: int, most_hosts: int | None) -> ServerPlan:
    limit = Limit("MySQL 9.7", ("default",), 200, (("max_connections", 200),), pooled=("default",))
    return ServerPlan(limit, 200 - slots, slots, most_hosts, slots, slots)


@pytest.mark.parametrize(
    ("found", "most", "why"),
    [
        (server(40, 100), 17, "budget of default / 2 for each - 3 = 40 / 2 - 3"),
        (server(180, 20), 17, "keepers of default - 3 = 20 - 3"),
        (server(10, 100), 2, "budget of default / 2 for each - 3 = 10 / 2 - 3"),
    ],
)
def test_no_more_pods_than_the_budget_carries(found: ServerPlan, most: int, why: str) -> None:
    site = replace(SITE, hosts="fleet", workers=2, servers=[found])
    assert f"maxReplicas: {most}" in lines("kubernetes", site)
    assert f"# At most {most} replicas: {why}" in lines("kubernetes", site)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (replace(SITE, hosts="fleet", workers=2, servers=[server(9, 100)]), "need 10 sessions of MySQL 9.7"),
        (replace(SITE, hosts="fleet", workers=2, servers=[server(90, 4)]), "and 5 keepers, and there are 90 and 4"),
        (replace(SITE, hosts=4, servers=[server(90, None)]), "Set hosts to fleet"),
        (replace(SITE, hosts="fleet"), "SQLite's file belongs to one host"),
    ],
)
def test_pods_that_do_not_fit_are_refused(site: Deployment, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        write("kubernetes", site)


def test_fixed_shares_are_for_as_many_pods_as_there_are_hosts() -> None:
    assert "maxReplicas: 7" in lines("kubernetes", replace(SITE, hosts=10, servers=[server(90, None)]))


def test_a_pod_has_time_to_drain() -> None:
    site = replace(SITE, hosts="fleet", servers=[server(90, 100)])
    assert "terminationGracePeriodSeconds: 165" in lines("kubernetes", site)
    assert '- {name: FULLHOUSE_STOP_DELAY, value: "120"}' in lines("kubernetes", site)
    site = replace(site, stop_delay_s=0)
    assert "terminationGracePeriodSeconds: 50" in lines("kubernetes", site)
    assert '- {name: FULLHOUSE_STOP_DELAY, value: "5"}' in lines("kubernetes", site)


def test_a_stop_may_take_its_delay_too() -> None:
    assert "stopwaitsecs=165" in lines("supervisord")
    assert "TimeoutStopSec=165" in lines("systemd")


def test_a_stop_waits_for_the_companions_too() -> None:
    site = replace(SITE, companions_s=600)
    assert "stopwaitsecs=615" in lines("supervisord", site)
    assert "TimeoutStopSec=615" in lines("systemd", site)


def test_systemd_listens_on_every_address() -> None:
    found = lines("systemd")
    assert [line for line in found if line.startswith(("ListenStream", "Backlog"))] == [
        "ListenStream=127.0.0.1:8000",
        "ListenStream=/run/my site.sock",
        "Backlog=99",
    ]


def test_nginx_speaks_tls_with_a_server_that_does_and_waits_for_one_without_a_timeout() -> None:
    found = lines("nginx", replace(SITE, has_tls=True, timeout_s=0))
    assert "proxy_pass https://mysite;" in found
    assert "proxy_read_timeout 3600s;" in found


@pytest.mark.parametrize(
    ("kind", "site"),
    [
        ("supervisord", replace(SITE, folder="/srv/a;b")),
        ("supervisord", replace(SITE, log="/var/log/100%.log")),
        ("systemd", replace(SITE, folder="/srv/a\nUser=root")),
        ("nginx", replace(SITE, files={"/static/": "/srv/$uri"})),
    ],
)
def test_what_cannot_be_written_is_refused(kind: str, site: Deployment) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written into that file"):
        write(kind, site)


def test_nginx_agrees_with_the_worker_and_passes_on_no_claim_of_a_client() -> None:
    found = lines("nginx")
    assert "client_max_body_size 1073741824;" in found
    assert "proxy_buffering off;" in found
    for name in ("X-Forwarded-Host", "X-Forwarded-Port", "Forwarded"):
        assert f'proxy_set_header {name} "";' in found
    found = lines("nginx", replace(SITE, max_body=None, has_own_worker=False))
    assert "client_max_body_size 0;" in found
    assert "proxy_buffering on;" in found


def test_a_unix_socket_is_not_for_everybody() -> None:
    found = lines("systemd")
    assert "SocketUser=web" in found
    assert "SocketMode=0660" in found
    assert "SocketMode=0660" not in lines("systemd", replace(SITE, addresses=["127.0.0.1:8000"]))


def test_pods_show_their_metrics_where_the_autoscaler_can_ask() -> None:
    site = replace(SITE, hosts="fleet", servers=[server(90, 10)])
    assert '- {name: FULLHOUSE_OBSERVE, value: "0.0.0.0:9464"}' in lines("kubernetes", site)
    found = lines("kubernetes", replace(site, observe="[::]:9100"))
    assert '- {name: FULLHOUSE_OBSERVE, value: "[::]:9100"}' in found
    assert 'annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9100"}' in found
    for address in ("127.0.0.1:9464", "unix:/tmp/x", "0.0.0.0:0"):
        with pytest.raises(ConfigurationError, match=r"Set it to 0\.0\.0\.0:9464"):
            write("kubernetes", replace(site, observe=address))


COMPOSED = replace(
    SITE,
    folder="/srv/mysite",
    files={"/static/": "/srv/mysite/static", "/media/": "/srv/mysite/media", "/uploads/": "/data/uploads"},
    static_url="/static/",
    locks=["requirements.txt"],
    servers=[ServerPlan(Limit("MySQL 9.7.0", ("default",), 200, (("max_connections", 200),)), 20, 180)],
    accounts={"default": Account("shop", "keeper")},
)


def test_compose_has_the_image_of_the_server_that_was_asked() -> None:
    limits = {
        "PostgreSQL 15.18": ("docker.io/library/postgres:15", '["postgres", "-c", "max_connections=203"]', "/data"),
        "PostgreSQL 18.4": ("docker.io/library/postgres:18", '["postgres", "-c", "max_connections=203"]', ""),
        "MariaDB 11.8.6 at db:3306": ("docker.io/library/mariadb:11.8", '["--max-connections=200"]', "/var/lib/mysql"),
        "MySQL 9.7.0": ("docker.io/library/mysql:9.7", '["--max-connections=200"]', "/var/lib/mysql"),
    }
    for server, (image, command, folder) in limits.items():
        limit = replace(COMPOSED.servers[0].limit, server=server)
        found = lines("compose", replace(COMPOSED, servers=[replace(COMPOSED.servers[0], limit=limit)]))
        assert f"image: {image}" in found
        assert f"command: {command}" in found
        assert any(line.startswith("volumes: [database:/var/lib/") and line.endswith(f"{folder}]") for line in found)


def test_compose_takes_no_word_for_a_variable() -> None:
    assert any('"--access-log-format=%(h)s $$HOME"' in line for line in lines("compose", COMPOSED))


def test_what_is_uploaded_is_in_volumes_that_nginx_reads() -> None:
    assert 'RUN install --directory --owner=10001 --group=10001 "/app/media" "/data/uploads"' in lines(
        "docker", COMPOSED
    )
    found = lines("compose", COMPOSED)
    assert 'volumes: [sockets:/run/site, "media:/app/media", "uploads:/data/uploads"]' in found
    assert "alias /data/uploads/;" in found
    assert not any(line.startswith("location /static/") for line in found)  # in the image, not in nginx's


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"servers": []}, "SQLite's file would be lost"),
        ({"accounts": {"default": Account("shop", "root")}}, "give the site a user of its own"),
        (
            {"servers": [ServerPlan(Limit("database", ("default",), 9, (("max_connections", 9),)), 1, 8)]},
            "was not asked",
        ),
        ({"command": [*SITE.command, "--bind=:80"]}, "--bind is not for an image"),
    ],
)
def test_what_compose_cannot_run_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        write("compose", replace(COMPOSED, **change))


def test_a_pooler_has_the_budget_and_hosts_have_its_clients() -> None:
    limit = Limit("PostgreSQL 18.4", ("default", "log"), 97, (("max_connections", 97),), pooled=("default", "log"))
    accounts = {
        "default": Account("shop", "web", "postgresql", "db.example", "5432"),
        "log": Account("log", "web", "postgresql", "db.example", "5432"),
    }
    site = replace(SITE, servers=[ServerPlan(limit, 10, 87)], accounts=accounts, requests=64)
    found = lines("pgbouncer", site)
    assert "shop = host=db.example port=5432 dbname=shop" in found
    assert "max_db_connections = 43" in found  # 87 / 2
    assert ';   FULLHOUSE = {"hosts": 1, "max_connections": 128, "reserve": 0}' in found
    mysql = {alias: replace(one, vendor="mysql") for alias, one in accounts.items()}
    with pytest.raises(ConfigurationError, match="the plan's budgets are: 87 sessions for default, log"):
        write("pgbouncer", replace(site, accounts=mysql))
