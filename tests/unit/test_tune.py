"""The search for the knee and the verdict, on sites that are a formula."""

from pathlib import Path

import pytest

from fullhouse.cli.tune import write_options
from fullhouse.errors import ConfigurationError
from fullhouse.tune.knee import HIGHEST_RATE, REFINEMENTS, Search, Step, Use, told, verdict

USE = Use(cpu=0.3, idle=0.5, threads=0.4, connection=0.0, statements=0.2, cores=4.0, workers=4, each=8)


def site(rate: float, capacity: float) -> Step:
    """Beyond its capacity it answers no more, ever later."""
    return Step(rate, min(rate, capacity), 0.01, 0.02 if rate <= capacity else 2.0)


@pytest.mark.parametrize("capacity", [5.0, 100.0, 777.0, 12_345.0])
def test_the_knee_is_found_within_a_fraction(capacity: float) -> None:
    search = Search()
    while (rate := search.next_rate) is not None:
        search.add(site(rate, capacity))
    assert search.knee is not None
    assert search.knee.offered <= capacity
    assert search.knee.offered >= capacity * (1 - 2**-REFINEMENTS) - 1
    assert len(search.steps) < 20


def test_a_site_without_a_knee_is_left_at_the_highest_rate() -> None:
    search = Search()
    while (rate := search.next_rate) is not None:
        search.add(site(rate, 10 * HIGHEST_RATE))
    assert search.knee is not None
    assert HIGHEST_RATE / 2 < search.knee.offered <= HIGHEST_RATE


def test_a_site_that_answers_nothing_has_no_knee() -> None:
    search = Search()
    search.add(Step(search.next_rate or 0.0, 0.0, float("inf"), float("inf")))
    assert (search.knee, search.next_rate) == (None, None)


@pytest.mark.parametrize(
    ("use", "saturated"),
    [
        ({"idle": 0.02, "cpu": 0.9}, "processor"),
        ({"idle": 0.6, "cpu": 0.95, "workers": 1}, "interpreter"),
        ({"connection": 0.5, "threads": 1.0}, "pool"),
        ({"statements": 0.9, "threads": 1.0}, "database"),
        ({"threads": 0.98}, "threads"),
        ({}, "nothing"),
    ],
)
def test_what_is_used_up(use: dict[str, float], saturated: str) -> None:
    found = verdict(Use(**{**vars(USE), **use}))
    assert found.saturated == saturated
    assert found.why
    if saturated == "interpreter":
        assert found.options == {"workers": 4}
    if saturated == "threads":
        assert found.options == {"threads": 16}


def test_options_are_set_in_an_environment_file(tmp_path: Path) -> None:
    path = tmp_path / "mysite.env"
    write_options(path, {})
    assert not path.exists()
    write_options(path, {"workers": 4})
    assert path.read_text() == "FULLHOUSE_WORKERS=4\n"
    path.write_text("SECRET_KEY=a=b\nFULLHOUSE_WORKERS=4\n# mine\n")
    write_options(path, {"workers": 8, "threads": 16})
    assert path.read_text() == "SECRET_KEY=a=b\n# mine\nFULLHOUSE_WORKERS=8\nFULLHOUSE_THREADS=16\n"
    with pytest.raises(ConfigurationError, match="--write"):
        write_options(tmp_path, {"workers": 4})


def test_the_chart_is_by_rate() -> None:
    lines = told([site(8, 10), site(4, 10), site(16, 10)], 80)
    assert [line.split()[0] for line in lines[1:]] == ["4", "8", "16"]
    assert lines[3].count("#") > lines[1].count("#")
    assert "2.00 s" in lines[3]
    assert "none" in told([Step(4, 0, float("inf"), float("inf"))], 80)[1]
