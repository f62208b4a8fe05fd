"""Histograms of durations: bounds belong to their bucket, and quantiles are between bounds."""

import pytest

from fullhouse.histogram import Histogram


def test_a_bound_belongs_to_its_bucket() -> None:
    found = Histogram((1.0, 2.0))
    for duration_s in (0.0, 1.0, 1.5, 2.0, 2.1):
        found.observe(duration_s)
    assert (found.counts, found.count, found.sum_s) == ([2, 2, 1], 5, pytest.approx(6.6))


def test_adds_another() -> None:
    found, copy = Histogram((1.0,), [1, 2], 3.0), Histogram((1.0,), [1, 2], 3.0).copy()
    found.add(Histogram((1.0,), [10, 20], 30.0))
    assert (found.counts, found.sum_s, copy.counts) == ([11, 22], 33.0, [1, 2])


@pytest.mark.parametrize(
    ("share", "quantile_s"),
    [(0.0, None), (0.25, 0.5), (0.5, 1.0), (0.75, 4.0), (0.9, 4.0), (1.0, 4.0)],
)
def test_a_quantile_is_interpolated_in_its_bucket(share: float, quantile_s: float | None) -> None:
    found = Histogram((1.0, 2.0, 4.0), [50, 0, 25, 25])
    assert found.quantile_s(share) == quantile_s
    assert Histogram((1.0,)).quantile_s(share) is None
