"""Which server an entry of DATABASES leads to."""

from typing import Any

import pytest

from fullhouse.plan.limits import server_address


@pytest.mark.parametrize(
    ("vendor", "database", "address"),
    [
        ("mysql", {}, ("localhost", "3306")),
        ("mysql", {"HOST": "127.0.0.1", "PORT": 3306}, ("localhost", "3306")),
        ("mysql", {"HOST": "/run/a.sock", "PORT": "3307"}, ("/run/a.sock", "")),
        ("mysql", {"HOST": "db", "OPTIONS": {"unix_socket": "/run/a.sock"}}, ("/run/a.sock", "")),
        ("mysql", {"HOST": "db", "OPTIONS": {"host": "other", "port": 3307}}, ("other", "3307")),
        ("mysql", {"OPTIONS": {"read_default_file": "/etc/my.cnf"}}, ("/etc/my.cnf", "")),
        ("mysql", {"HOST": "db", "OPTIONS": {"read_default_file": "/etc/my.cnf"}}, ("db", "3306")),
        ("postgresql", {}, ("localhost", "5432")),
        ("postgresql", {"HOST": "/run/postgresql", "PORT": "5433"}, ("/run/postgresql", "5433")),
        ("postgresql", {"OPTIONS": {"service": "shop"}}, ("shop", "5432")),
        ("postgresql", {"HOST": "a,b"}, ("a,b", "5432")),
    ],
)
def test_address(vendor: str, database: dict[str, Any], address: tuple[str, str]) -> None:
    assert server_address(vendor, database) == address


def test_postgresql_takes_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db")
    monkeypatch.setenv("PGPORT", "5433")
    assert server_address("postgresql", {}) == ("db", "5433")
    assert server_address("postgresql", {"HOST": "other", "PORT": "5434"}) == ("other", "5434")
    assert server_address("mysql", {}) == ("localhost", "3306")
