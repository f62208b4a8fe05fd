"""What is said to be supported is what the matrix runs, and a leg's outcome is read from what it printed."""

import re
import tomllib
from pathlib import Path

import pytest

import matrix
import programs
import supported
from matrix import Result
from supported import LEGS

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def classified(prefix: str) -> list[str]:
    found = [re.fullmatch(rf"{prefix} :: (\d+\.\d+)", line) for line in PROJECT["classifiers"]]
    return [match[1] for match in found if match]


def test_the_classifiers_name_what_is_tested() -> None:
    assert classified("Programming Language :: Python") == supported.versions("Python")
    assert classified("Framework :: Django") == supported.versions("Django")


def test_the_oldest_python_is_the_one_that_is_required() -> None:
    assert PROJECT["requires-python"] == f">={supported.versions('Python')[0]}"


def test_the_lock_has_the_djangos() -> None:
    locked = re.findall(r"^django==(\d+\.\d+)\.", (ROOT / "requirements" / "test.txt").read_text(), re.MULTILINE)
    assert locked == supported.versions("Django")


def test_the_readme_says_so() -> None:
    assert supported.sentence() in " ".join((ROOT / "README.md").read_text().split())


def test_ci_runs_the_whole_matrix() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make matrix"
    assert "tools/matrix.py $(LEGS)" in (ROOT / "Makefile").read_text()


def test_the_readmes_commands_are_read_to_the_letter() -> None:
    readme = (
        "```\nfullhouse plan x\n```\n\n```\nmake demo       # a box office\nmake test\n```\n\n```\nmake other\n```\n"
    )
    assert matrix.readme_commands(readme) == ["make demo", "make test"]
    commands = matrix.readme_commands((ROOT / "README.md").read_text())
    assert {"make demo", "make test"} <= set(commands)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (["Python 3.11.2", "Django 5.2.19", "MariaDB 10.11.19", "PostgreSQL 15.14"], []),
        (["Python 3.11.2", "Django 5.2.19", "MariaDB 10.11.19"], ["PostgreSQL 15"]),
        (["Python 3.1.1", "Django 5.20.1", "MariaDB 10.11.19", "PostgreSQL 15.1"], ["Python 3.11", "Django 5.2"]),
    ],
)
def test_a_version_that_is_not_the_promised_one_is_noticed(found: list[str], missing: list[str]) -> None:
    assert supported.missing(LEGS[0].versions, found) == missing


OUTPUT = """\
=========================== short test summary info ============================
SKIPPED [2] tests/unit/test_x.py:12: unshare is not permitted: no namespace
SKIPPED [1] tests/unit/test_y.py:9: unshare is not permitted: no namespace
FAILED tests/unit/test_z.py::test_z - AssertionError
============ 1 failed, 1860 passed, 3 skipped in 600.12s (0:10:00) =============
"""


def test_the_outcome_is_read_from_the_closing_lines() -> None:
    result = Result(LEGS[1], "Python 3.13.5, Django 6.1.3", failure="make test ended with code 2", seconds=600)
    result.take_tests(OUTPUT)
    assert result.tests == {"passed": 1860, "failed": 1, "skipped": 3}
    assert result.line() == (
        "trixie    FAILED: make test ended with code 2: Python 3.13.5, Django 6.1.3: "
        "1860 passed, 1 failed, 3 skipped (3 × unshare is not permitted: no namespace), 10.0 min"
    )


def test_errors_count_as_failures() -> None:
    result = Result(LEGS[0])
    result.take_tests("=== 1 passed, 2 errors in 1.00s ===\n")
    assert result.failed == 2


def test_where_podman_is_missing_the_leg_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "LOGS", tmp_path)
    monkeypatch.setattr(programs, "SERVER_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    result = matrix.run_leg(LEGS[1])
    assert result.failure == "podman is not installed. On Debian: apt-get install podman"


def test_a_leg_that_could_not_run_is_never_green() -> None:
    result = Result(LEGS[2], failure="podman is not installed")
    result.take_tests("")
    assert "FAILED: podman is not installed: not run on Python 3.15" in result.line()
    assert matrix.summary([result]).endswith("\n0 passed, 1 failed, 0 skipped")
