"""What becomes of other servers' configurations, and that the options which they are turned into are accepted."""

import json
from pathlib import Path

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.foreign.lines import Fate, Source, merged
from fullhouse.foreign.report import as_data, as_text, found
from fullhouse.settings.companions import companions
from fullhouse.settings.layers import layered
from fullhouse.settings.table import Settings

UWSGI = """
[uwsgi]
; a comment
ini = :base
master
base = $(FULLHOUSE_TEST_BASE)/site
processes = 8
socket = site.sock
socket = :8001
harakiri = 30
reload-on-rss = 512
umask = 022
logto = %(base)/%n.log
env = LANG=C.UTF-8
env = DJANGO_SETTINGS_MODULE=site.settings
gevent = 100
max-requests = many
smart-attach-daemon = /tmp/celery.pid celery -A site worker
static-map = /static=/srv/static
no-such-thing = 1
[other]
threads = 7
[base]
ini = :base
chdir = /srv
"""
UNIT = {
    "listeners": {"*:8300": {"pass": "applications/site"}, "unix:/run/site.sock": {"pass": "routes"}},
    "routes": [{"action": {"share": "/srv/static$uri"}}],
    "applications": {
        "site": {
            "type": "python 3.11",
            "path": ["/srv/site", "/srv/lib"],
            "module": "site.wsgi",
            "processes": {"max": 8, "spare": 2, "idle_timeout": 20},
            "threads": 4,
            "limits": {"timeout": 30, "requests": 5000},
            "user": "www-data",
            "environment": {"DJANGO_SETTINGS_MODULE": "site.settings", "LANG": "C"},
        }
    },
    "settings": {"http": {"idle_timeout": 60, "max_body_size": 8388608}},
    "access_log": {"path": "/var/log/site.log"},
    "certificates": "?",
}
GUNICORN = """
import os
workers = os.cpu_count() * 2 + 1
worker_class = "gevent"
worker_connections = 1000
bind = "0.0.0.0:80"
raw_env = ["A=1"]
max_requests_jitter = 50
daemon = True
user = "www-data"
answer = 42
def post_fork(server, worker): pass
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.setenv("FULLHOUSE_TEST_BASE", "/home/web")


def write(folder: Path, **files: str) -> list[Source]:
    """What is found in a folder with these files; a dot in a name is written as two underscores."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return found(folder, {})


def fates(source: Source) -> dict[str, Fate]:
    return {line.text: line.fate for line in source.lines}


def accepted(*sources: Source) -> Settings:
    """The options that the sources come to, as the FULLHOUSE dict takes them."""
    options = merged(tuple(line for source in sources for line in source.lines))
    settings = layered(Settings(), options, "FULLHOUSE")
    companions(settings)
    return settings


def test_uwsgi(tmp_path: Path) -> None:
    (source,) = write(tmp_path, uwsgi__ini=UWSGI)
    assert fates(source) == {
        "chdir = /srv": Fate.NEEDLESS,
        "master = true": Fate.NEEDLESS,
        "base = $(FULLHOUSE_TEST_BASE)/site": Fate.NEEDLESS,
        "processes = 8": Fate.OWNED,
        "socket = site.sock": Fate.PASSED,
        "socket = :8001": Fate.PASSED,
        "harakiri = 30": Fate.PASSED,
        "reload-on-rss = 512": Fate.PASSED,
        "umask = 022": Fate.PASSED,
        "logto = %(base)/%n.log": Fate.PASSED,
        "env = LANG=C.UTF-8": Fate.PASSED,
        "env = DJANGO_SETTINGS_MODULE=site.settings": Fate.PASSED,
        "gevent = 100": Fate.REFUSED,
        "max-requests = many": Fate.REFUSED,
        "smart-attach-daemon = /tmp/celery.pid celery -A site worker": Fate.PASSED,
        "static-map = /static=/srv/static": Fate.REFUSED,
        "no-such-thing = 1": Fate.REFUSED,
    }
    settings = accepted(source)
    assert settings.bind == ("unix:site.sock", "0.0.0.0:8001")
    assert (settings.request_timeout, settings.max_worker_memory) == (30, 512 << 20)
    assert settings.log_file == "/home/web/site/uwsgi.log"
    assert settings.env == {"LANG": "C.UTF-8"}
    assert settings.gunicorn == {"umask": 0o22}
    assert settings.processes == {"celery": "celery -A site worker"}


def test_unit(tmp_path: Path) -> None:
    (source,) = write(tmp_path, unit__json=json.dumps(UNIT))
    by_fate = {fate: [text for text, found in fates(source).items() if found is fate] for fate in Fate}
    assert [text.partition(" =")[0] for text in by_fate[Fate.OWNED]] == [
        "applications.site.processes.max",
        "applications.site.threads",
    ]
    assert [text.partition(" =")[0] for text in by_fate[Fate.REFUSED]] == [
        "routes",
        "applications.site.user",
        "certificates",
    ]
    settings = accepted(source)
    assert settings.bind == ("0.0.0.0:8300", "unix:/run/site.sock")
    assert (settings.request_timeout, settings.max_requests, settings.keepalive) == (30, 5000, 60)
    assert (settings.max_body, settings.access_log) == (8388608, "/var/log/site.log")
    assert settings.python_path == ("/srv/site", "/srv/lib")
    assert settings.env == {"LANG": "C"}


def test_procfile(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "gunicorn.py").write_text(GUNICORN)
    text = (
        "release: python manage.py migrate\n"
        "web: gunicorn -c conf/gunicorn.py site.wsgi --threads=8 --timeout ${LIMIT:-60} -b 0.0.0.0:$PORT --log-file -\n"
        "# a comment\n"
        "worker: celery -A site worker\n"
    )
    procfile, configuration = write(tmp_path, Procfile=text)
    assert fates(procfile) == {
        "release: python manage.py migrate": Fate.NEEDLESS,
        text.splitlines()[1]: Fate.NEEDLESS,
        "site.wsgi": Fate.NEEDLESS,
        "--config=conf/gunicorn.py": Fate.NEEDLESS,
        "--threads=8": Fate.OWNED,
        "--timeout=60": Fate.PASSED,
        "--bind='0.0.0.0:$PORT'": Fate.NEEDLESS,
        "--log-file=-": Fate.PASSED,
        "worker: celery -A site worker": Fate.PASSED,
    }
    assert fates(configuration)["worker_class = 'gevent'"] is Fate.REFUSED
    assert "answer = 42" not in fates(configuration)
    settings = accepted(procfile, configuration)
    assert (settings.timeout, settings.error_log, settings.env) == (60, "-", {"A": "1"})
    assert settings.gunicorn == {"max_requests_jitter": 50}
    assert settings.processes == {"worker": "celery -A site worker"}


@pytest.mark.parametrize(
    ("command", "fate"),
    [
        ("uvicorn site.asgi:application", Fate.REFUSED),
        ("python manage.py runserver", Fate.REFUSED),
        ("gunicorn --no-such-thing site.wsgi", Fate.NEEDLESS),
        ("gunicorn --timeout=soon site.wsgi", Fate.NEEDLESS),
        ("python -m gunicorn site.wsgi", Fate.NEEDLESS),
        ("uwsgi --http :8000", Fate.NEEDLESS),
    ],
)
def test_other_commands_of_a_procfile(tmp_path: Path, command: str, fate: Fate) -> None:
    (source,) = write(tmp_path, Procfile=f"web: {command}\n")
    assert source.lines[0].fate is fate
    assert any(line.fate is Fate.REFUSED for line in source.lines) == (
        fate is Fate.REFUSED or "=soon" in command or "--no" in command
    )
    accepted(source)


def test_what_fullhouse_reads_itself_needs_no_settings(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("timeout = 60\n")
    sources = found(tmp_path, {"GUNICORN_CMD_ARGS": "--keep-alive 7 --workers 2"})
    assert [source.is_read for source in sources] == [True, True]
    text = as_text(sources)
    assert "What becomes of gunicorn.conf.py, which fullhouse reads" in text
    assert "What becomes of GUNICORN_CMD_ARGS, which fullhouse reads" in text
    assert "FULLHOUSE = " not in text
    assert [source["options"] for source in as_data(sources)] == [{}, {}]


def test_nothing_is_said_where_there_is_nothing(tmp_path: Path) -> None:
    assert as_text(found(tmp_path, {})) == ""


@pytest.mark.parametrize("name", ["none.ini", "none.json", "none.py", "Nofile"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"none|Nofile"):
        found(tmp_path, {}, [name])
