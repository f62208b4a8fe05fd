"""An engine of another library under our mixin: django-prometheus counts what it counts over Django's engine."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from overlay import overlay
from private_servers import PrivateServer
from sessions import entry

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = "django-prometheus==2.5.0"
# What the documentation says, word for word, for both vendors.
ENGINE = """
from django_prometheus.db.backends.{vendor} import base as theirs
from fullhouse.db.{vendor}.base import Pooled


class DatabaseWrapper(Pooled, theirs.DatabaseWrapper):
    pass
"""
QUERIES, ERRORS = 7, 2
ASK = f"""
import json, sys
from django.conf import settings
settings.configure(DATABASES={{"default": json.loads(sys.argv[1])}}, INSTALLED_APPS=["django_prometheus"])
import django
django.setup()
from django.db import connection
from prometheus_client import REGISTRY

def count():
    metrics = (metric for metric in REGISTRY.collect() if metric.name.startswith("django_db_"))
    samples = (sample for metric in metrics for sample in metric.samples if sample.name.endswith("_total"))
    return {{f"{{sample.name}} {{sample.labels.get('type', '')}}": sample.value for sample in samples}}

connection.ensure_connection()
before = count()
for _ in range({QUERIES}):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.executemany("SELECT %s", [[1], [2]])
for _ in range({ERRORS}):
    try:
        connection.cursor().execute("SELECT nothing")
    except Exception:
        pass
print(json.dumps([before, {{name: value - before.get(name, 0) for name, value in count().items()}}]))
"""


@pytest.mark.parametrize("vendor", ["mysql", "postgresql"])
def test_prometheus_counts(vendor: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server: PrivateServer = request.getfixturevalue(f"{vendor}_server")
    (tmp_path / "counted").mkdir()
    (tmp_path / "counted" / "__init__.py").touch()
    (tmp_path / "counted" / "base.py").write_text(ENGINE.format(vendor=vendor))
    python = overlay("django-prometheus", [PROMETHEUS])
    counted = {}
    for engine in ("counted", f"django_prometheus.db.backends.{vendor}"):
        words = [str(python), "-c", ASK, json.dumps({**entry("ours", server), "ENGINE": engine})]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        counted[engine] = json.loads(done.stdout)
    (before, ours), (_, theirs) = counted.values()
    assert before["django_db_new_connections_total "] == 1
    assert ours == theirs
    assert ours["django_db_execute_total "] >= QUERIES + ERRORS
