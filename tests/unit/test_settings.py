"""The option table and its layers: dict, environment, command line."""

import argparse
from collections.abc import Mapping
from typing import Any

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.settings.arguments import add_options, as_arguments, from_arguments
from fullhouse.settings.layers import from_environment, layered
from fullhouse.settings.table import OPTIONS, Settings

# For each option a value other than its default, and the text that means it.
SAMPLES: dict[str, tuple[Any, str]] = {
    "sizing": ("recipe", "recipe"),
    "workers": (3, "3"),
    "threads": (9, "9"),
    "reserve": (0, "0"),
    "hosts": (2, "2"),
    "budget": (20, "20"),
    "connections_per_thread": (1, "1"),
    "max_connections": (1000, "1000"),
    "cores": (1.5, "1.5"),
    "memory": (512 << 20, "512M"),
    "open_files": (1024, "1024"),
    "bind": (("[::1]:0", "unix:/run/x.sock"), "[::1]:0,unix:/run/x.sock"),
    "backlog": (64, "64"),
    "boot_timeout": (10, "10"),
    "warm_up": ("/health", "/health"),
    "probes": (False, "false"),
    "live_path": ("/alive", "/alive"),
    "ready_path": ("/welcome", "/welcome"),
    "stop_delay": (5, "5"),
    "queue_limit": (50, "50"),
    "queue_target": (0.2, "0.2"),
    "wait_timeout": (5.0, "5"),
    "client_share": (0.25, "0.25"),
    "critical_paths": (("/pay", "/login"), "/pay,/login"),
    "required": (("default", "log"), "default,log"),
    "sheddable_paths": (("/export",), "/export"),
    "priority": ("shop.priority.of", "shop.priority.of"),
    "overload_page": ("/srv/busy.html", "/srv/busy.html"),
    "request_timeout": (20.0, "20"),
    "request_timeouts": ({"/export": 120.0, "/": 2.5}, "/export=120 /=2.5"),
    "max_worker_memory": (512 << 20, "512M"),
    "log_file": ("/var/log/x.log", "/var/log/x.log"),
    "certfile": ("/c.pem", "/c.pem"),
    "keyfile": ("/k.pem", "/k.pem"),
    "timeout": (0, "0"),
    "graceful_timeout": (5, "5"),
    "keepalive": (2, "2"),
    "max_requests": (1000, "1000"),
    "worker_class": ("gthread", "gthread"),
    "header_timeout": (5.5, "5.5"),
    "transfer_timeout": (7.0, "7"),
    "minimum_rate": (100, "100"),
    "body_memory": (65536, "64K"),
    "transfer_memory": (32 << 20, "32M"),
    "max_body": (1 << 20, "1M"),
    "preload": (False, "no"),
    "static": (False, "no"),
    "freeze_gc": (False, "no"),
    "reload": (True, "yes"),
    "access_log": ("-", "-"),
    "error_log": ("/var/log/e", "/var/log/e"),
    "access_log_format": ("%(h)s", "%(h)s"),
    "observe": ("127.0.0.1:9000", "127.0.0.1:9000"),
    "slow_request": (2.5, "2.5"),
    "server_timing": (True, "1"),
    "log_level": ("info", "info"),
    "process_name": ("box office", "box office"),
    "python_path": (("/a", "/b"), "/a,/b"),
    "processes": ({"tasks": "manage.py db_worker", "beat": "beat"}, "tasks='manage.py db_worker' beat=beat"),
    "env": ({"A": "1", "B": "two words"}, "A=1 B='two words'"),
    "gunicorn": ({"umask": "7"}, "umask=7"),
}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def test_every_option_has_a_sample() -> None:
    assert SAMPLES.keys() == OPTIONS.keys()
    assert all(value != OPTIONS[name].default for name, (value, _) in SAMPLES.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_dict_environment_and_command_line_mean_the_same(name: str) -> None:
    value, text = SAMPLES[name]
    option = OPTIONS[name]
    flag = option.flag if value is not False else option.flag.replace("--", "--no-", 1)
    words = [flag] if option.kind.is_flag else [flag, text]
    by_layer = {
        "FULLHOUSE": layered(Settings(), {name: value}, "FULLHOUSE"),
        option.variable: from_environment(Settings(), {option.variable: text}),
        option.flag: from_arguments(Settings(), parsed(*words)),
    }
    for source, settings in by_layer.items():
        assert getattr(settings, name) == value
        assert settings.sources == {name: source}
        assert settings == layered(Settings(), {name: value}, "")


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_survives_being_handed_on(name: str) -> None:
    """`manage.py serve` starts `fullhouse serve` with the words that it was given."""
    option = OPTIONS[name]
    words = [option.flag] if option.kind.is_flag else [option.flag, SAMPLES[name][1]]
    arguments = parsed(*words)
    assert parsed(*as_arguments(arguments)) == arguments


def test_a_later_layer_wins() -> None:
    settings = layered(Settings(), {"workers": 1, "threads": 1, "budget": 1, "hosts": 2}, "FULLHOUSE")
    settings = from_environment(settings, {"FULLHOUSE_THREADS": "2", "FULLHOUSE_BUDGET": "2"})
    settings = from_arguments(settings, parsed("--budget", "3"))
    assert (settings.workers, settings.threads, settings.budget, settings.hosts) == (1, 2, 3, 2)
    assert settings.sources == {
        "workers": "FULLHOUSE",
        "threads": "FULLHOUSE_THREADS",
        "budget": "--budget",
        "hosts": "FULLHOUSE",
    }


def test_variables_that_other_servers_know_come_before_ours() -> None:
    theirs = {"PORT": "8080", "WEB_CONCURRENCY": "3"}
    settings = from_environment(Settings(), theirs)
    assert (settings.bind, settings.workers) == (("0.0.0.0:8080",), 3)
    assert settings.sources == {"bind": "PORT", "workers": "WEB_CONCURRENCY"}
    ours = {"FULLHOUSE_BIND": "127.0.0.1:1", "FULLHOUSE_WORKERS": "4"}
    settings = from_environment(Settings(), {**theirs, **ours})
    assert (settings.bind, settings.workers) == (("127.0.0.1:1",), 4)


def test_variables_of_others_are_left_alone() -> None:
    assert from_environment(Settings(), {"FULLHOUSE_DEMO_DB": "mariadb", "FULLHOUSES": "1", "PORT": ""}) == Settings()


@pytest.mark.parametrize("text", ["1", "true", "Yes", " ON "])
def test_words_for_true(text: str) -> None:
    assert from_environment(Settings(), {"FULLHOUSE_RELOAD": text}).reload is True


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_words_for_false(text: str) -> None:
    assert from_environment(Settings(reload=True), {"FULLHOUSE_RELOAD": text}).reload is False


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("1k", 1024), ("512M", 512 << 20), ("1.5GiB", 3 << 29), ("2tb", 2 << 40)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert from_environment(Settings(), {"FULLHOUSE_MEMORY": text}).memory == size


def test_a_repeated_argument_adds_up() -> None:
    settings = from_arguments(Settings(), parsed("-b", ":1", "-b", "h:2,h:3", "--env", "A=1", "--env", "B=2"))
    assert settings.bind == (":1", "h:2", "h:3")
    assert settings.env == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"worker": 1}, "FULLHOUSE: unknown option 'worker'. Did you mean workers?"),
        ({"xyzzy": 1}, "FULLHOUSE: unknown option 'xyzzy'."),
        ({"workers": "3"}, "FULLHOUSE: workers must be a whole number of at least 1, not '3'."),
        ({"workers": 0}, "FULLHOUSE: workers must be a whole number of at least 1, not 0."),
        ({"workers": 2.0}, "FULLHOUSE: workers must be a whole number of at least 1, not 2.0."),
        ({"hosts": True}, "FULLHOUSE: hosts must be a whole number of at least 1, or 'fleet', not True."),
        ({"hosts": None}, "FULLHOUSE: hosts must be a whole number of at least 1, or 'fleet', not None."),
        ({"keepalive": 30.0}, "FULLHOUSE: keepalive must be a whole number of at least 0, not 30.0."),
        ({"reserve": -1}, "FULLHOUSE: reserve must be a whole number of at least 0, not -1."),
        ({"cores": float("inf")}, "FULLHOUSE: cores must be a number above 0, not inf."),
        ({"cores": 0}, "FULLHOUSE: cores must be a number above 0, not 0."),
        ({"sizing": "big"}, "FULLHOUSE: sizing must be one of fit, recipe, not 'big'."),
        ({"reload": 0}, "FULLHOUSE: reload must be True or False, not 0."),
        ({"memory": 0}, "FULLHOUSE: memory must be a size in bytes, or with a unit such as 512M or 8G, not 0."),
        ({"certfile": ""}, "FULLHOUSE: certfile must be the path of a file, not ''."),
        ({"env": ["A=1"]}, "FULLHOUSE: env must be NAME=VALUE pairs (a dict in settings), not ['A=1']."),
        ({"env": {1: "a"}}, "FULLHOUSE: env must be NAME=VALUE pairs (a dict in settings), not {1: 'a'}."),
    ],
)
def test_an_impossible_value_is_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        layered(Settings(), values, "FULLHOUSE")
    assert str(refused.value) == message


@pytest.mark.parametrize("address", ["", "8000", "host:", "host:http", "host:65536", "host:-1", "host:²", "unix:", []])
def test_a_bad_address_is_refused(address: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^test: bind must be HOST:PORT"):
        layered(Settings(), {"bind": address}, "test")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("FULLHOUSE_WORKER", "3", "no option has the variable FULLHOUSE_WORKER. Did you mean FULLHOUSE_WORKERS?"),
        ("FULLHOUSE_WORKERS", "many", "FULLHOUSE_WORKERS: workers must be a whole number of at least 1, not 'many'."),
        ("FULLHOUSE_WORKERS", "", "FULLHOUSE_WORKERS: workers must be a whole number of at least 1, not ''."),
        ("FULLHOUSE_CORES", "nan", "FULLHOUSE_CORES: cores must be a number above 0, not 'nan'."),
        ("FULLHOUSE_MEMORY", "inf", "FULLHOUSE_MEMORY: memory must be a size"),
        ("FULLHOUSE_MEMORY", "G", "FULLHOUSE_MEMORY: memory must be a size"),
        ("FULLHOUSE_RELOAD", "maybe", "FULLHOUSE_RELOAD: reload must be True or False, not 'maybe'."),
        ("FULLHOUSE_ENV", "A", "FULLHOUSE_ENV: env must be NAME=VALUE pairs"),
        ("FULLHOUSE_ENV", "A='", "FULLHOUSE_ENV: env must be NAME=VALUE pairs"),
        ("PORT", "http", "PORT: bind must be HOST:PORT"),
        ("WEB_CONCURRENCY", "-1", "WEB_CONCURRENCY: workers must be a whole number of at least 1, not '-1'."),
    ],
)
def test_an_impossible_variable_is_refused(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        from_environment(Settings(), {variable: text})
    assert message in str(refused.value)


def test_an_impossible_argument_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^--workers: workers must be .* not 'x'\.$"):
        from_arguments(Settings(), parsed("-w", "x"))


def test_settings_cannot_be_changed() -> None:
    settings = layered(Settings(), {"env": {"A": "1"}}, "test")
    with pytest.raises(AttributeError):
        settings.workers = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.env["A"] = "2"  # type: ignore[index]
