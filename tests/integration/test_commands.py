"""Bad input to real commands: one short error, the documented exit code, nothing left behind."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Site, make_certificate, plan_of


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("commands") / "site")


@pytest.fixture
def site(pristine: Site, tmp_path: Path) -> Site:
    """A project of the test's own, to break."""
    return Site(Path(shutil.copytree(pristine.folder, tmp_path / "site")))


def check_refused(answer: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    """The exit code, and on standard error an error of one or two lines and nothing else."""
    assert answer.returncode == code, answer.stderr
    assert re.search(message, answer.stderr), answer.stderr
    assert answer.stderr.startswith("fullhouse: ")
    assert len(answer.stderr.splitlines()) <= 2


@pytest.mark.parametrize("command", ["plan", "serve"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mysit", r"No Django project 'mysit' here: .* Did you mean mysite\?"),
        ("shop", r"No Django project 'shop' here: .* Found here: mysite\."),
        ("mysite.settings", r"No Django project 'mysite\.settings' here: .* Found here: mysite\."),
        ("./mysite", r"'\./mysite' is not a project name: .* Did you mean mysite\?"),
        ("", r"'' is not a project name"),
    ],
)
def test_an_unknown_project(pristine: Site, command: str, name: str, message: str) -> None:
    answer = pristine.command(command, name)
    check_refused(answer, 2, message)
    assert answer.stdout == ""


def test_no_project(pristine: Site, tmp_path: Path) -> None:
    check_refused(pristine.command("plan"), 2, r"Which project\? Name it, or set .* Found here: mysite\.")
    check_refused(
        Site(pristine.folder.parent).command("plan"), 2, "There is a project in the folder site: change into it"
    )
    check_refused(Site(tmp_path).command("plan"), 2, "Change into the folder that holds manage.py")


def test_two_names_for_the_project(pristine: Site) -> None:
    answer = pristine.command("plan", "mysite", DJANGO_SETTINGS_MODULE="other.settings")
    check_refused(answer, 2, "The project is mysite, but DJANGO_SETTINGS_MODULE is other.settings")


BROKEN = {
    "syntax": ("def broken(:", r"SyntaxError: .*settings\.py, line \d+"),
    "import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "name": ("DEBUG = no_such_name", "NameError: name 'no_such_name' is not defined"),
    "environment": ("import os\nKEY = os.environ['SITE_KEY']", "KeyError: 'SITE_KEY'"),
    "exit": ("raise SystemExit('not here')", "SystemExit: not here"),
    "refused by Django": ("SECRET_KEY = 1; ALLOWED_HOSTS = 'x'", "ALLOWED_HOSTS setting must be a list"),
}


@pytest.mark.parametrize("command", ["plan", "serve"])
@pytest.mark.parametrize(("text", "cause"), BROKEN.values(), ids=BROKEN)
def test_settings_that_do_not_import(site: Site, command: str, text: str, cause: str) -> None:
    site.append("settings", text)
    answer = site.command(command, "mysite")
    check_refused(answer, 2, cause)
    assert answer.stdout == ""


def test_traceback_is_shown_when_asked_for(site: Site) -> None:
    site.append("settings", "import no_such_module")
    answer = site.command("plan", "mysite", "--traceback")
    assert answer.returncode == 2
    assert "Traceback (most recent call last)" in answer.stderr
    assert "fullhouse: mysite.settings does not import" in answer.stderr


def test_a_package_that_does_not_import(site: Site) -> None:
    site.append("__init__", "import no_such_module")
    check_refused(site.command("plan", "mysite"), 2, r"No module named 'no_such_module' .*__init__\.py, line \d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FULLHOUSE = {'worker': 3}", r"FULLHOUSE in mysite.settings: .* Did you mean workers\?"),
        ("FULLHOUSE = {'workers': '3'}", "FULLHOUSE in mysite.settings: workers must be a whole number"),
        ("FULLHOUSE = ['workers']", "mysite.settings: FULLHOUSE must be a dict, not list"),
        ("DATABASES['default']['ENGINE'] = 'no.such'", "DATABASES cannot be used: .*'no.such' isn't an available"),
        ("DATABASES['default']['ENGINE'] = 'django.db.backends.oracle'", "DATABASES cannot be used: .*oracledb"),
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.mysql', 'NAME': 'a', 'PORT': 'x'}}",
            "'default' is misconfigured: ValueError",
        ),
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.mysql', 'NAME': 'a', 'OPTIONS': {'nope': 1}}}",
            "'default' is misconfigured: TypeError: .*nope",
        ),
        (
            "DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql'}}",
            "'default' is misconfigured: ImproperlyConfigured: .*supply the NAME",
        ),
    ],
)
def test_settings_that_cannot_be_meant(site: Site, text: str, message: str) -> None:
    site.append("settings", text)
    check_refused(site.command("serve", "mysite"), 2, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wrokers", "3"], r"Unknown option --wrokers. Did you mean --workers\?"),
        (["--workers", "x"], "--workers: workers must be a whole number of at least 1, not 'x'"),
        (["twice"], "Unexpected argument 'twice'"),
        (["--gunicorn", "umsk=7"], r"gunicorn has no setting 'umsk'. Did you mean umask\?"),
        (["--worker-class", "no.such.Worker"], "gunicorn refuses worker_class = 'no.such.Worker'"),
        (["--gunicorn", "bind=:80"], "gunicorn's bind is the option 'bind' here"),
        (["--certfile", "/none.pem"], r"certfile /none\.pem does not exist"),
        (["--keyfile", "/none.pem"], "there is no certfile"),
        (["--log-file", "/"], "log_file / cannot be written: Is a directory"),
        (["--bind", "nowhere"], "--bind: bind must be HOST:PORT"),
        (["--max-connections", "5", "--workers", "4"], "No thread fits database: .*\nLower the number of workers to 2"),
    ],
)
def test_bad_options(pristine: Site, words: list[str], message: str) -> None:
    answer = pristine.command("serve", "mysite", *words)
    check_refused(answer, 2, message)
    assert answer.stdout == ""


def test_a_missing_value_shows_the_usage() -> None:
    answer = Site(Path.cwd()).command("plan", "--workers")
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        "usage: fullhouse plan [PROJECT] [OPTION ...]",
        "fullhouse plan: error: argument -w/--workers: expected one argument",
    ]


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_busy_port(pristine: Site, busy: int, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    answer = pristine.command("serve", "mysite", "-b", f"unix:{path}", "-b", f"127.0.0.1:{busy}")
    check_refused(answer, 4, rf"Cannot listen on 127.0.0.1:{busy}: pid {os.getpid()} \(")
    assert answer.stdout == ""
    assert not path.exists()


def test_a_certificate_and_the_key_of_another(pristine: Site, tmp_path: Path) -> None:
    for name in "ab":
        make_certificate(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    answer = pristine.command("serve", "mysite", "--certfile", f"{tmp_path}/a.crt", "--keyfile", f"{tmp_path}/b.key")
    check_refused(answer, 2, "the key must belong to the certificate")


@pytest.mark.parametrize("workers", ["1", "8"])
@pytest.mark.parametrize(("module", "text"), [("wsgi", "import no_such_module"), ("wsgi", "raise SystemExit(3)")])
def test_an_application_that_does_not_load(site: Site, workers: str, module: str, text: str, tmp_path: Path) -> None:
    site.append(module, text)
    path = tmp_path / "site.sock"
    answer = site.command("serve", "mysite", "-b", f"unix:{path}", "-b", "127.0.0.1:0", "--workers", workers)
    check_refused(answer, 5, r"mysite\.wsgi\.application does not load: .*\nFix it \(.*wsgi\.py, line \d+\)")
    assert not path.exists()


def test_an_app_that_is_not_installed(site: Site) -> None:
    site.append("settings", "INSTALLED_APPS += ['no_such_app']")
    check_refused(site.command("serve", "mysite", "-b", "127.0.0.1:0"), 5, "No module named 'no_such_app'")


def test_an_application_that_does_not_load_shows_its_traceback_once(site: Site) -> None:
    site.append("wsgi", "import no_such_module")
    answer = site.command("serve", "mysite", "-b", "127.0.0.1:0", "--workers", "4", "--traceback")
    assert answer.returncode == 5
    assert answer.stderr.count("Traceback (most recent call last)") == 1
    assert "fullhouse: " not in answer.stderr


def test_plan_for_a_program(pristine: Site) -> None:
    words = ["--format", "json", "--max-connections", "1000", "--reserve", "40", "--cores", "8", "--sizing", "recipe"]
    plan = plan_of(pristine.command("plan", "mysite", *words))
    assert plan.keys() == {
        "project",
        "sizing",
        "workers",
        "threads",
        "pool",
        "requests",
        "transfer_memory",
        "machine",
        "servers",
        "steps",
        "static_files",
        "processes",
        "others",
        "notes",
    }
    assert (plan["project"], plan["sizing"]) == ("mysite", "recipe")
    assert (plan["workers"], plan["threads"], plan["pool"], plan["requests"]) == (17, 28, 56, 476)
    assert plan["servers"][0]["budget"] == 960
    assert {step["name"] for step in plan["steps"]} >= {"cores", "workers", "threads", "budget of default"}


def test_what_settings_print_is_no_part_of_a_plan(site: Site) -> None:
    site.append("settings", "print('loading')")
    answer = site.command("plan", "mysite", "--format", "json")
    assert json.loads(answer.stdout)["project"] == "mysite"
    assert answer.stderr == "loading\n"


def test_a_plan_that_nobody_reads_to_its_end(pristine: Site) -> None:
    with pristine.started("-m", "fullhouse", "plan", "mysite") as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        assert (running.process.wait(60), running.errors()) == (141, "")


def test_plan_for_a_person(pristine: Site) -> None:
    answer = pristine.command("plan", "mysite", "--workers", "3", "--threads", "5")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Plan for mysite, sizing fit\n")
    assert "= 3 workers × 5 threads: 15 requests at once" in answer.stdout
    assert "SQLite has no connection limit" in answer.stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "--help"], ["serve", "--help"], ["status", "--help"], ["deploy", "--help"]]
)
def test_help_fits_a_terminal(words: list[str]) -> None:
    answer = Site(Path.cwd()).command(*words, COLUMNS="200")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert max(map(len, answer.stdout.splitlines())) <= 100


def test_nothing_of_the_project_is_written(site: Site) -> None:
    before = {path for path in site.folder.rglob("*") if "__pycache__" not in path.parts}
    assert site.command("plan", "mysite").returncode == 0
    assert {path for path in site.folder.rglob("*") if "__pycache__" not in path.parts} == before


@pytest.mark.parametrize("command", ["plan", "serve"])
def test_manage_py_passes_errors_on(site: Site, command: str) -> None:
    site.append("settings", "INSTALLED_APPS += ['fullhouse']\nFULLHOUSE = {'worker': 3}\n")
    words = ["manage.py", "serve", *(["--plan"] if command == "plan" else [])]
    with site.started(*words) as running:
        out, _ = running.process.communicate(timeout=60)
        err = running.errors()
    assert (running.process.returncode, out) == (2, "")
    assert "FULLHOUSE in mysite.settings: unknown option 'worker'. Did you mean workers?" in err
    assert len(err.splitlines()) == 1


def as_package(site: Site) -> Site:
    """Settings as a package with an empty __init__, as templates of projects make them."""
    package = site.folder / "mysite" / "settings"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (site.folder / "mysite" / "settings.py").rename(package / "dev.py")
    return site


@pytest.fixture
def packaged(tmp_path: Path) -> Site:
    return as_package(Site.make(tmp_path / "site"))


@pytest.mark.parametrize("file", ["mysite/wsgi.py", "manage.py"])
@pytest.mark.parametrize("form", ["setdefault", "assignment"])
def test_the_settings_are_those_that_the_project_itself_names(packaged: Site, file: str, form: str) -> None:
    for name in ("mysite/wsgi.py", "manage.py"):
        path = packaged.folder / name
        text = path.read_text()
        old = next(line for line in text.splitlines() if "DJANGO_SETTINGS_MODULE" in line)
        new = {
            "setdefault": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings.dev")',
            "assignment": "os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings.dev'",
        }[form]
        indent = old[: len(old) - len(old.lstrip())]
        path.write_text(text.replace(old, indent + (new if name == file else "pass")))
    answer = packaged.command("plan", "mysite", "--format", "json")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_settings_that_are_of_no_site_are_refused(packaged: Site) -> None:
    answer = packaged.command("plan", "mysite", DJANGO_SETTINGS_MODULE="mysite.settings")
    check_refused(answer, 2, "mysite.settings has no ROOT_URLCONF, so it is not the settings module of a site.")
    assert "Modules in it: mysite.settings.dev." in answer.stderr
    assert "DJANGO_SETTINGS_MODULE" in answer.stderr


def test_the_settings_given_as_the_project(packaged: Site) -> None:
    answer = packaged.command("plan", "mysite.settings.dev", DJANGO_SETTINGS_MODULE="mysite.settings.dev")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Plan for mysite,")


def test_a_project_without_wsgi_application_is_served(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    site.append("settings", "del WSGI_APPLICATION\n")
    (site.folder / "mysite" / "wsgi.py").unlink()
    with site.served("-m", "fullhouse", "serve", "mysite", "--bind", "127.0.0.1:0", "--workers", "1") as server:
        assert server.get() == "version 1"
        server.end()


DOTENV_WSGI = """
import os
from dotenv import load_dotenv
from django.core.wsgi import get_wsgi_application
load_dotenv(os.path.join(os.path.dirname(__file__), ".env"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""
DOTENV_SETTINGS = """
import os
DEBUG = os.environ.get("DEBUG", "1") == "1"
FULLHOUSE = {"workers": 1, "threads": int(os.environ.get("THREADS", "9"))}
"""


def test_the_plan_sees_what_wsgi_py_loads_from_a_dotenv_file(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    site.append("settings", DOTENV_SETTINGS)
    assert plan_of(site.command("plan", "mysite", "--format", "json"))["threads"] == 9
    (site.folder / "mysite" / "wsgi.py").write_text(DOTENV_WSGI)
    (site.folder / "mysite" / ".env").write_text("DEBUG=0\nTHREADS=3\n")
    assert plan_of(site.command("plan", "mysite", "--format", "json"))["threads"] == 3


def test_a_wsgi_py_that_sets_up_otherwise_is_refused(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    wsgi = site.folder / "mysite" / "wsgi.py"
    wsgi.write_text(
        wsgi.read_text().replace("application =", "os.environ['WSGI'] = str(os.getppid())\napplication =", 1)
    )
    site.append("settings", "import os\nDEBUG = os.environ.get('WSGI') != str(os.getppid())\n")
    answer = site.command("plan", "mysite")
    assert answer.returncode == 2
    fact, _ = answer.stderr.splitlines()
    assert fact.endswith("sets the project up otherwise: DEBUG is False there, and True in mysite.settings alone.")


def test_a_wsgi_py_that_ends_its_process_is_named(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    wsgi = site.folder / "mysite" / "wsgi.py"
    wsgi.write_text("import os\nos._exit(9)\n" + wsgi.read_text())
    answer = site.command("plan", "mysite")
    assert answer.returncode == 5
    assert answer.stderr.endswith("wsgi.py ends the process that imports it, with exit code 9.\n")


CONFIGURATION = """
from configurations import Configuration

class Live(Configuration):
    SECRET_KEY = "x"
    ALLOWED_HOSTS = ["*"]
    ROOT_URLCONF = "mysite.urls"
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
    FULLHOUSE = {"workers": 1, "threads": 2}
"""
CONFIGURED_WSGI = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
os.environ.setdefault("DJANGO_CONFIGURATION", "Live")
from configurations.wsgi import get_wsgi_application
application = get_wsgi_application()
"""


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="django-configurations needs load_module, gone in 3.15")
@pytest.mark.parametrize("said_by", ["wsgi.py", "the environment"])
def test_class_based_settings(tmp_path: Path, said_by: str) -> None:
    site = Site.make(tmp_path / "site")
    (site.folder / "mysite" / "settings.py").write_text(CONFIGURATION)
    variables = {"DJANGO_CONFIGURATION": "Live"}
    if said_by == "wsgi.py":
        (site.folder / "mysite" / "wsgi.py").write_text(CONFIGURED_WSGI)
        variables = {}
    plan = plan_of(site.command("plan", "mysite", "--format", "json", **variables))
    assert (plan["workers"], plan["threads"]) == (1, 2)
    with site.served("-m", "fullhouse", "serve", "mysite", "--bind", "127.0.0.1:0", **variables) as running:
        assert running.get("/")


CLIENTS = """
import socket, threading
flags = threading.Thread(target=threading.Event().wait, name="feature-flags", daemon=True)
flags.start()
metrics = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
"""


def test_threads_and_sockets_of_the_settings_are_named(tmp_path: Path) -> None:
    site = Site.make(tmp_path / "site")
    assert "Importing" not in site.command("plan", "mysite").stdout
    site.append("settings", CLIENTS)
    (note,) = [line for line in site.command("plan", "mysite").stdout.splitlines() if "Importing" in line]
    assert re.search(r"mysite\.settings started an open socket \(descriptor \d+\), the thread 'feature-flags'\.", note)
    site.append("settings", "metrics.close()\n")
    with site.served("-m", "fullhouse", "serve", "mysite", "--bind", "127.0.0.1:0", "--workers", "1") as running:
        assert running.get("/")
