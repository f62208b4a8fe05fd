"""Files for those who watch the site: Prometheus's scrape and alert rules, and a dashboard for Grafana.

The names are those of `observer.prometheus`; tests/integration/test_monitoring.py loads all of it into a real
Prometheus that scrapes a served site.
"""

import json
from collections.abc import Mapping
from typing import Any

from fullhouse.deploy.deployment import Deployment
from fullhouse.errors import ConfigurationError
from fullhouse.settings.kinds import seen_here

_COUNT = "http_server_request_duration_seconds_count"
_BUCKETS = "http_server_request_duration_seconds_bucket"
_TIMES = "fullhouse_request_time_seconds_total"
_POOL = "db_client_connection_pool_name"
_WAITS = "db_client_connection_wait_time_seconds_bucket"
_ERRORS = f'{_COUNT}{{http_response_status_code=~"5.."}}'
_HEIGHT, _COLUMNS, _WIDTH = 8, 2, 24

# name: expression (JOB is the site's name), how long it must hold, severity, text.
ALERTS: Mapping[str, tuple[str, str, str, str]] = {
    "FullhouseDown": ("up{job=JOB} == 0", "1m", "critical", "Nothing answers at the address of its metrics."),
    "FullhouseErrors": (
        f"sum(rate({_ERRORS}[5m])) / sum(rate({_COUNT}[5m])) > 0.05",
        "5m",
        "critical",
        "{{ $value | humanizePercentage }} of the requests fail.",
    ),
    "FullhouseRequestsNotRun": (
        'sum by (reason) (rate(fullhouse_requests_shed_total{reason!="client_gone"}[5m])) > 0',
        "5m",
        "critical",
        "{{ $value | humanize }} requests a second get 503 ({{ $labels.reason }}): more come than are served.",
    ),
    "FullhouseRequestsWait": (
        "histogram_quantile(0.95, sum by (le) (rate(fullhouse_queue_wait_seconds_bucket[5m]))) > 0.5",
        "10m",
        "warning",
        "One request of 20 waits {{ $value | humanizeDuration }} for a thread.",
    ),
    "FullhouseConnectionTimeouts": (
        "increase(db_client_connection_timeouts_total[5m]) > 0",
        "0m",
        "critical",
        "{{ $value | humanize }} requests got no connection to {{ $labels.db_client_connection_pool_name }}.",
    ),
    "FullhouseBudgetUsedUp": (
        "sum by (pools) (fullhouse_slots) >= on (pools) fullhouse_budget_slots",
        "10m",
        "warning",
        "Every database session that this host may have is held: {{ $labels.pools }}.",
    ),
    "FullhouseWorkersEnd": (
        'sum(increase(fullhouse_worker_ends_total{reason=~"crashed|timeout|stuck_request"}[10m])) > 2',
        "0m",
        "warning",
        "{{ $value | humanize }} workers have crashed or hung within ten minutes.",
    ),
    "FullhouseCompanionDown": (
        "fullhouse_companion_up == 0",
        "5m",
        "warning",
        "{{ $labels.name }} {{ $labels.number }} does not run.",
    ),
}

# title: unit, and expressions by legend.
PANELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "Requests by status": (
        "reqps",
        {"{{http_response_status_code}}": f"sum by (http_response_status_code) (rate({_COUNT}[1m]))"},
    ),
    "Time to respond": (
        "s",
        {
            f"{share} %": f"histogram_quantile({share / 100}, sum by (le) (rate({_BUCKETS}[1m])))"
            for share in (50, 95, 99)
        },
    ),
    "Where the time goes": ("s", {"{{part}}": f"sum by (part) (rate({_TIMES}[1m]))"}),
    "Slowest routes (time per second)": (
        "s",
        {"{{http_route}}": f"topk(10, sum by (http_route) (rate({_TIMES}[1m])))"},
    ),
    "Threads": ("short", {"there are": "sum(fullhouse_threads)", "busy": "sum(http_server_active_requests)"}),
    "Requests that wait": (
        "short",
        {"now": "sum(fullhouse_queue_requests)", "at most": "sum(fullhouse_queue_peak_requests)"},
    ),
    "Requests that were not run": (
        "reqps",
        {"{{reason}}": "sum by (reason) (rate(fullhouse_requests_shed_total[1m]))"},
    ),
    "Database sessions by holder": (
        "short",
        {"{{pools}} {{kind}} {{holder}}": "fullhouse_slots", "{{pools}} budget": "fullhouse_budget_slots"},
    ),
    "Waits for a connection (95 %)": (
        "s",
        {f"{{{{{_POOL}}}}}": f"histogram_quantile(0.95, sum by (le, {_POOL}) (rate({_WAITS}[1m])))"},
    ),
    "Memory of the workers": ("bytes", {"worker {{worker}}": "process_memory_usage_bytes"}),
    "Ends of workers": ("short", {"{{reason}}": "sum by (reason) (increase(fullhouse_worker_ends_total[5m]))"}),
    "Statements per second": ("ops", {"{{http_route}}": "topk(10, rate(fullhouse_request_statements_total[1m]))"}),
}


def scrape(site: Deployment) -> str:
    """For scrape_configs in prometheus.yml, or a file of scrape_config_files.

    Raises ConfigurationError where the metrics have no address that Prometheus can ask.
    """
    if site.observe is None or site.observe.startswith("unix:") or site.observe.endswith(":0"):
        raise ConfigurationError(
            f"observe is {site.observe or 'not set'}: Prometheus asks an address. Set it to 127.0.0.1:PORT, or to an "
            "address that Prometheus reaches."
        )
    return f"""# From fullhouse deploy prometheus {site.project}.
scrape_configs:
  - job_name: {json.dumps(site.project)}
    scrape_interval: 15s
    static_configs:
      - targets: [{json.dumps(seen_here(site.observe))}]
"""


def rules(site: Deployment) -> str:
    """For rule_files."""
    lines = [f"# From fullhouse deploy prometheus {site.project}.", "groups:", f"  - name: {json.dumps(site.project)}"]
    lines.append("    rules:")
    for name, (expression, hold, severity, text) in ALERTS.items():
        lines += [
            f"      - alert: {name}",
            f"        expr: {json.dumps(expression.replace('JOB', json.dumps(site.project)))}",
            f"        for: {hold}",
            f"        labels: {{severity: {severity}}}",
            f"        annotations: {{summary: {json.dumps(f'{site.project}: {text}')}}}",
        ]
    return "\n".join([*lines, ""])


def dashboard(site: Deployment) -> str:
    """For Grafana: Dashboards, New, Import."""
    panels = [_panel(number, title, unit, lines) for number, (title, (unit, lines)) in enumerate(PANELS.items())]
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    board = {
        "title": f"{site.project} (fullhouse)",
        "uid": f"fullhouse-{site.project}"[:40],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }
    return json.dumps(board, indent=2) + "\n"


def _panel(number: int, title: str, unit: str, lines: Mapping[str, str]) -> dict[str, Any]:
    width = _WIDTH // _COLUMNS
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + order), "datasource": source, "expr": expression, "legendFormat": legend}
        for order, (legend, expression) in enumerate(lines.items())
    ]
    place = {"h": _HEIGHT, "w": width, "x": number % _COLUMNS * width, "y": number // _COLUMNS * _HEIGHT}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
