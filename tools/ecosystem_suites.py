"""The packages whose own tests `ecosystem.py` runs, one row each, and the tests that may fail, each with its reason."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Suite:
    """A package at a pinned version, whose source distribution has its tests.

    command: what Python is given, in `folder` of the source. servers: postgresql, mysql, one run each.
    variant: what is special about this row. needs: what else the tests import. environment: variables that they ask
    for; {PORT} in them and the like are those of the database. settings: of Django, instead of theirs. engine: the
    ENGINE of a library with one of its own, built on the one that is named by `base_setting`. is_short: whether it is
    part of the short selection, which CI runs.
    """

    name: str
    version: str
    command: tuple[str, ...]
    servers: tuple[str, ...] = ("postgresql",)
    variant: str = ""
    folder: str = "."
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    engine: str | None = None
    base_setting: str | None = None
    is_short: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.version, self.variant)))


_BOTH = ("postgresql", "mysql")
_PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
_TEST = ("test", "--noinput", "--parallel=1", "--verbosity=0")

_TENANTS = Suite(
    "django-tenants",
    "4.0.1",
    ("manage.py", *_TEST, "django_tenants"),
    folder="dts_test_project",
    engine="django_tenants.postgresql_backend",
    base_setting="ORIGINAL_BACKEND",
    is_short=True,
)

SUITES = (
    Suite(
        "django-debug-toolbar",
        "8.0.0",
        ("-m", "django", *_TEST, "tests"),
        _BOTH,
        needs=("html5lib", "jinja2", "django-csp", "django-template-partials", "pygments", "whitenoise", "selenium"),
        environment={"DJANGO_SETTINGS_MODULE": "tests.settings"},
        is_short=True,
    ),
    Suite(
        "django-treebeard",
        "7.0.3",
        (*_PYTEST, "tests"),
        _BOTH,
        needs=("pytest-django", "pytest-rerunfailures"),
        environment={"DJANGO_SETTINGS_MODULE": "tests.settings"},
    ),
    Suite("django-reversion", "6.4.0", ("manage.py", *_TEST), folder="tests", is_short=True),
    Suite("django-simple-history", "3.13.0", ("runtests.py",), _BOTH),
    Suite(
        "django-silk",
        "5.6.0",
        ("manage.py", *_TEST),
        _BOTH,
        folder="project",
        needs=("factory-boy", "freezegun", "networkx", "pillow", "pydot", "pygments"),
    ),
    _TENANTS,
    replace(_TENANTS, variant="TENANT_LIMIT_SET_CALLS", settings={"TENANT_LIMIT_SET_CALLS": True}),
    Suite(
        "django-celery-beat",
        "2.9.0",
        (*_PYTEST, "t/unit"),
        _BOTH,
        needs=("pytest<9", "pytest-django", "pytest-timeout", "ephem"),
        environment={"DJANGO_SETTINGS_MODULE": "t.proj.settings"},
    ),
    Suite(
        "django-celery-results",
        "2.6.0",
        (*_PYTEST, "t/unit"),
        _BOTH,
        needs=("pytest<9", "pytest-django", "pytest-benchmark", "pytz"),
        environment={"DJANGO_SETTINGS_MODULE": "t.proj.settings"},
    ),
    Suite(
        "pytest-django",
        "4.14.0",
        (*_PYTEST, "tests"),
        _BOTH,
        needs=("pytest>=9", "pytest-xdist"),
        # Its tests call the servers' own clients, too.
        environment={
            "DJANGO_SETTINGS_MODULE": "pytest_django_test.settings_postgres",
            "PGPORT": "{PORT}",
            "MYSQL_TCP_PORT": "{PORT}",
        },
    ),
    Suite(
        "wagtail",
        "8.0.1",
        ("-m", "django", *_TEST, *(f"wagtail.{part}" for part in ("tests", "search", "images", "contrib"))),
        _BOTH,
        needs=(
            "jinja2",
            "boto3",
            "freezegun",
            "azure-mgmt-cdn",
            "azure-mgmt-frontdoor",
            "django-pattern-library",
            "responses",
            "polib",
            "factory-boy",
            "tblib",
        ),
        environment={"DJANGO_SETTINGS_MODULE": "wagtail.test.settings"},
    ),
)

# Suite → test → reason.
EXEMPTIONS: dict[str, dict[str, str]] = {}
