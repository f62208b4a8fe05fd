"""What the observer makes of two looks, and of many: rates, percentiles, routes, history, a terminal's screen."""

import re
from typing import Any

import pytest

from fullhouse.cli.top import screen
from fullhouse.observer.figures import figures
from fullhouse.observer.history import COARSE_S, COLUMNS, History
from fullhouse.observer.look import Budget, Holder, Look
from fullhouse.observer.prometheus import exposition
from fullhouse.telemetry.rows import Database, DatabaseGauges, DatabaseTotals, Gauges, Row, Totals
from fullhouse.telemetry.tally import Tally
from fullhouse.telemetry.times import Times

STATUS: dict[str, Any] = {
    "uptime_s": 3700.0,
    "stopping": False,
    "crashes": 0,
    "last_failure": None,
    "processes": [{"name": "tasks", "number": 1, "state": "running", "since_s": 9.0, "crashes": 0, "pid": 7}],
    "slot_files": {},
    "generations": [{"number": 3, "state": "ready", "since_s": 60.0, "planned": 2, "workers": [{}, {}]}],
}
BUDGET = Budget(
    ["default"],
    20,
    [
        Holder(1, 12, "worker", "worker 0", 3),
        Holder(2, 3, "worker", "worker 1", 3),
        Holder(9, 1, "other", "manage.py shell"),
    ],
)


def tally(*requests: tuple[str, int, float]) -> Tally:
    """route, status and duration of each."""
    found = Tally()
    for route, status, total_s in requests:
        times = Times("GET", 0.1)
        times.route, times.status, times.total_s = route, status, total_s
        times.statements, times.statements_s = 4, total_s / 2
        found.count(total_s, failed=status >= 500, times=times)
    return found


def look(clock: float, found: Tally, shed: int = 0, **status: Any) -> Look:
    rows = [
        Row(
            Gauges(number + 1, 3, 0, 4, 2, 1, 5, 250, 50 << 20, 2.5),
            Totals(found.requests, found.errors, 1000, (0, shed, 0, 0, 0)),
            found.waits,
            (Database("default", DatabaseGauges(3, 2, 1, 1, 3, 20, 20), DatabaseTotals(10, 1, 3, 0)),),
            found.series,
            number,
        )
        for number in range(2)
    ]
    dead = Row(Gauges(99, 2, 0, 4, 4, 9), Totals(requests=100), number=2, lives=False)
    return Look(1000 + clock, clock, STATUS | status, [*rows, dead], [BUDGET])


def test_rates_and_percentiles_are_those_between_two_looks() -> None:
    before = look(0.0, tally(("a/", 200, 9.0)))
    after = look(10.0, tally(("a/", 200, 9.0), ("a/", 200, 0.02), ("b/", 500, 0.2), ("", 404, 0.02)), shed=5)
    found = figures(before, after)
    assert (found["requests_per_s"], found["errors_per_s"], found["shed_per_s"]) == (0.6, 0.2, {"overload": 1.0})
    assert (found["requests"], found["span_s"]) == (108, 10.0)
    assert found["durations_s"]["p50"] == pytest.approx(0.0213, abs=0.001)
    assert 0.1 < found["durations_s"]["p95"] < 0.25
    assert (found["threads"], found["busy"], found["queued"], found["oldest_wait_s"]) == (8, 4, 2, 0.25)
    first, second, third = found["routes"]
    assert (first["route"], first["requests_per_s"], first["mean_s"], first["statements"]) == ("b/", 0.2, 0.2, 4.0)
    assert {second["route"], third["route"]} == {"a/", ""}
    assert sum(one["share"] for one in found["routes"]) == pytest.approx(1.0, abs=0.01)
    (database,) = found["databases"]
    assert (database["in_use"], database["waiting"], database["budget"], database["refused"]) == (4, 2, 20, 2)
    assert len(found["workers"]) == 2


def test_nothing_happened() -> None:
    quiet = look(5.0, Tally())
    found = figures(quiet, quiet)
    assert (found["requests_per_s"], found["durations_s"]["p50"], found["routes"]) == (0.0, None, [])


def test_history_keeps_peaks_and_marks() -> None:
    history = History()
    ends = {"stopped": 0, "crashed": 0}
    for second in range(25):
        generation = 3 if second < 12 else 4
        status = [{"number": generation, "state": "ready", "since_s": 1, "planned": 1, "workers": []}]
        now = look(float(second), Tally(), generations=status)
        found = figures(now, now) | {"busy": 9 if second == 3 else 1}
        ends = {"stopped": second, "crashed": 1 if second > 20 else 0}
        history.add(found, ends)
    fine, coarse = (history.as_dict(coarse=which) for which in (False, True))
    assert len(fine["points"]) == 25
    busy = COLUMNS.index("busy")
    assert [point[busy] for point in coarse["points"]] == [9, 1]
    assert coarse["points"][1][0] - coarse["points"][0][0] >= COARSE_S
    assert [(kind, text) for _, kind, text in fine["marks"]] == [
        ("reload", "generation 4 serves"),
        ("end", "1 × a worker ended: crashed"),
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (200, 60)])
def test_a_screen_fits_its_terminal(width: int, height: int) -> None:
    requests = [(f"a/very/long/route/number/{number}/<int:{'x' * 60}>/", 200, 0.1) for number in range(30)]
    found = figures(look(0.0, Tally()), look(10.0, tally(*requests), shed=3))
    lines = screen("mysite on 8000", found, width, height, colour=False)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("mysite on 8000: up 1 h 1 min; generation 3 ready, 2 of 2 workers"[:width])
    text = "\n".join(lines)
    assert "sessions aaaaaaaaaaaaaaaaaaaaaaaabbbbbbcc········ 16 of 20"[: width - 2] in text
    if height >= 24:
        assert "worker 1" in text
        assert "route" in text
    coloured = screen("mysite on 8000", found, width, height, colour=True)
    assert any("\x1b[" in line for line in coloured)
    assert [re.sub("\x1b\\[[0-9]*m", "", line) for line in coloured] == lines


def test_metrics_of_a_command_are_one_series() -> None:
    text, _ = exposition(look(1.0, tally(("a/", 200, 0.02))), "")
    assert b'fullhouse_slots{holder="",kind="other",pools="default"} 1.0' in text
    assert b'http_server_request_duration_seconds_bucket{http_request_method="GET"' in text
    assert b'fullhouse_request_time_seconds_total{http_route="a/",part="statements"} 0.02' in text
