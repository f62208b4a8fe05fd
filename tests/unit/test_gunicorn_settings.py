"""From our options to gunicorn's: what passes, what is refused, and by whom."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.plan.machine import Machine
from fullhouse.plan.planner import make_plan
from fullhouse.settings.layers import layered
from fullhouse.settings.table import OPTIONS, OVERLOAD, Settings
from fullhouse.site.databases import DatabaseHooks
from fullhouse.supervisor.gunicorn_args import from_gunicorn_cmd_args, from_gunicorn_file
from fullhouse.supervisor.gunicorn_settings import OF_OUR_WORKER, both, gunicorn_settings
from fullhouse.worker import Worker
from fullhouse.worker.options import Options

MACHINE = Machine(cores=2, memory=1 << 34, open_files=4096)


def made(**options: Any) -> dict[str, Any]:
    settings = layered(Settings(), options, "test")
    return gunicorn_settings(settings, make_plan(settings, MACHINE, []), "mysite", DatabaseHooks())


def test_the_defaults_are_those_of_the_recipe() -> None:
    assert (
        made().items()
        >= {
            "bind": ["127.0.0.1:8000"],
            "workers": 2,
            "threads": 128,
            "backlog": 2048,
            "timeout": 60,
            "graceful_timeout": 60,
            "keepalive": 30,
            "max_requests": 0,
            "max_requests_jitter": 0,
            "reload": False,
            "accesslog": None,
            "errorlog": "-",
            "proc_name": "fullhouse: mysite",
            "pythonpath": None,
            "raw_env": [],
            "control_socket_disable": True,
        }.items()
    )


def test_our_worker_takes_its_options_along() -> None:
    worker = made(header_timeout=5.0, freeze_gc=False)["worker_class"]
    assert issubclass(worker, Worker)
    assert (worker.options.header_timeout_s, worker.options.freeze_gc) == (5.0, False)
    assert made(worker_class="gthread")["worker_class"] == "gthread"


def test_options_become_gunicorns() -> None:
    values = made(
        max_requests=1000, process_name="box", python_path=["/a", "/b"], env={"A": "1"}, gunicorn={"umask": "7"}
    )
    assert (
        values.items()
        >= {
            "max_requests": 1000,
            "max_requests_jitter": 50,
            "proc_name": "box",
            "pythonpath": "/a,/b",
            "raw_env": ["A=1"],
            "umask": "7",
        }.items()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gunicorn": {"umsk": "7"}}, "gunicorn has no setting 'umsk'. Did you mean umask?"),
        ({"gunicorn": {"umask": "x"}}, "gunicorn refuses umask = 'x'"),
        ({"worker_class": "no.such.Worker"}, "gunicorn refuses worker_class = 'no.such.Worker'"),
        ({"gunicorn": {"accesslog": "-"}}, "test: gunicorn's accesslog is the option 'access_log' here; set that one."),
        ({"gunicorn": {"workers": 3}}, "test: gunicorn's workers is the option 'workers' here; set that one."),
    ],
)
def test_a_bad_setting_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        made(**options)
    assert message in str(refused.value)


def with_args(text: str) -> Settings:
    return from_gunicorn_cmd_args(
        layered(Settings(), {"gunicorn": {"umask": "7"}}, "test"), {"GUNICORN_CMD_ARGS": text}
    )


def test_gunicorn_cmd_args_keep_their_meaning() -> None:
    settings = with_args(
        "--workers 3 --threads=4 -b 127.0.0.1:1 -b unix:/x --reload"
        " --env A=1 --env 'B=two words' --access-logfile - --limit-request-line 9"
    )
    assert (settings.workers, settings.threads, settings.bind) == (3, 4, ("127.0.0.1:1", "unix:/x"))
    assert (settings.reload, settings.env, settings.access_log) == (True, {"A": "1", "B": "two words"}, "-")
    assert settings.gunicorn == {"umask": "7", "limit_request_line": 9}
    assert settings.sources["workers"] == "GUNICORN_CMD_ARGS"


def test_without_gunicorn_cmd_args_nothing_changes() -> None:
    assert from_gunicorn_cmd_args(Settings(), {}) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--wrokers 3", "GUNICORN_CMD_ARGS: gunicorn has no option --wrokers."),
        ("--workers many", "GUNICORN_CMD_ARGS: argument -w/--workers: invalid int value: 'many'."),
        ("--workers 0", "GUNICORN_CMD_ARGS: workers must be a whole number of at least 1, not 0."),
        ("--bind nowhere", "GUNICORN_CMD_ARGS: bind must be HOST:PORT"),
        ("--env A", "GUNICORN_CMD_ARGS: env must be NAME=VALUE pairs"),
        ("--name 'box", "GUNICORN_CMD_ARGS: No closing quotation."),
        ("-c other.py", "GUNICORN_CMD_ARGS names the configuration file other.py, which would hide the plan."),
    ],
)
def test_bad_gunicorn_cmd_args_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        with_args(text)
    assert message in str(refused.value)


def test_a_gunicorn_conf_py_has_its_effect(tmp_path: Path) -> None:
    called: list[str] = []
    (tmp_path / "gunicorn.conf.py").write_text(
        "import os\nhelper = 5\ntimeout = 77\nbind = '127.0.0.1:8001'\nraw_env = ['A=1']\nlimit_request_line = 500\n"
        "def post_worker_init(worker):\n    worker.calls.append('theirs')\n"
    )
    settings = from_gunicorn_file(Settings(), tmp_path)
    assert (settings.timeout, settings.bind, settings.env) == (77, ("127.0.0.1:8001",), {"A": "1"})
    assert settings.sources["timeout"] == "gunicorn.conf.py"
    assert settings.gunicorn["limit_request_line"] == 500
    assert "helper" not in settings.gunicorn
    values = both(lambda worker: called.append("ours"), settings.gunicorn["post_worker_init"])
    values(SimpleNamespace(calls=called))
    assert called == ["ours", "theirs"]
    assert from_gunicorn_file(Settings(), tmp_path / "nowhere") == Settings()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            "workers = 5",
            "gunicorn.conf.py sets workers, which the plan decides.\nRemove it, or set FULLHOUSE['workers'] to fix it.",
        ),
        ("worker_connections = 5", "gunicorn.conf.py sets worker_connections, which the plan decides.\nRemove it."),
        ("1 / 0", "gunicorn.conf.py cannot be read: ZeroDivisionError: division by zero"),
        ("timeout = 'x'", "gunicorn.conf.py: timeout must be"),
    ],
)
def test_a_gunicorn_conf_py_is_refused(tmp_path: Path, text: str, refusal: str) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(text + "\n")
    with pytest.raises(ConfigurationError) as refused:
        from_gunicorn_file(Settings(), tmp_path)
    assert str(refused.value).startswith(refusal)


@pytest.mark.parametrize("name", ["gevent", "eventlet", "tornado", "gunicorn.workers.base.Worker"])
def test_workers_without_threads_are_refused(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^test: worker_class .* does not run each request in a thread of its"
    ):
        made(worker_class=name)


class OfTheirOwn(Worker):
    """One that changes nothing of the options."""


class WithOptions(Worker):
    options = Options(header_timeout_s=3.0)


def test_a_subclass_of_our_worker_has_the_options() -> None:
    worker = made(worker_class=f"{__name__}.OfTheirOwn", header_timeout=5.0)["worker_class"]
    assert issubclass(worker, OfTheirOwn)
    assert worker.options.header_timeout_s == 5.0
    assert made(worker_class=f"{__name__}.WithOptions")["worker_class"] == f"{__name__}.WithOptions"


@pytest.mark.parametrize("name", ["gthread", "sync", f"{__name__}.WithOptions"])
def test_options_that_a_worker_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"does not know header_timeout \(test\), request_timeouts \(test\)\.\n"
    ):
        made(worker_class=name, header_timeout=5.0, request_timeouts={"/": 3.0})


def test_every_option_of_the_overload_is_one_of_our_worker() -> None:
    overload = {option.name for option in OPTIONS.values() if option.group == OVERLOAD}
    assert overload <= set(OF_OUR_WORKER) <= set(OPTIONS)


def test_workers_of_another_user_are_refused() -> None:
    other = os.geteuid() + 1
    with pytest.raises(ConfigurationError, match=f"^test: user and group are {other} and .* cannot share the budget"):
        made(gunicorn={"user": other})
    with pytest.raises(ConfigurationError, match="Run the whole site as that user"):
        made(gunicorn={"group": os.getegid() + 1})
    assert made(gunicorn={"user": os.geteuid(), "group": os.getegid()})
