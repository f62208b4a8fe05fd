"""The stats board: rows of their own, readers that see whole rows, writers that may die."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.histogram import CONNECTION_BOUNDS_S, REQUEST_BOUNDS_S, Histogram
from fullhouse.telemetry.board import ROWS, Board, Notice, Writer, create, dump_path
from fullhouse.telemetry.recorder import Recorded, Recorder
from fullhouse.telemetry.rows import (
    DATABASES,
    END_REASONS,
    Database,
    DatabaseGauges,
    DatabaseTotals,
    Gauges,
    Row,
    Totals,
    summed,
)
from fullhouse.telemetry.tally import MOST_SERIES, SHED_REASONS, Series, Tally
from fullhouse.telemetry.times import Times

HERE = os.getpid()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "board")
    return tmp_path / "board"


def recorder(path: Path, tally: Tally, databases: Sequence[Database] = (), log: Any = None, dump: str = "") -> Recorder:
    return Recorder(Writer(path), Recorded(2, 4, lambda: databases, lambda: dump, lambda: 1000), tally, log)


def histogram(bounds: Sequence[float], first: int) -> Histogram:
    return Histogram(bounds, range(first, first + len(bounds) + 1), first / 2)


def described(row: Row) -> tuple[Any, ...]:
    """All of a row, by values."""

    def plain(one: Histogram) -> tuple[Any, ...]:
        return *one.counts, one.sum_s

    databases = [
        (one.alias, one.gauges, one.totals, *map(plain, (one.waits, one.connects, one.uses))) for one in row.databases
    ]
    series = {
        key: (plain(one.durations), one.waited_s, one.connection_s, one.statements, one.statements_s, one.sent_s)
        for key, one in row.series.items()
    }
    return row.gauges, row.totals, plain(row.waits), databases, series, row.number, row.lives


def full_row() -> Row:
    databases = tuple(
        Database(
            f"alias {number}",
            DatabaseGauges(number, 2, 3, 4, 5, 6, 7),
            DatabaseTotals(8, 9, 10, 11),
            *(histogram(CONNECTION_BOUNDS_S, number + which) for which in range(3)),
        )
        for number in range(DATABASES)
    )
    series = Series()
    series.durations = histogram(REQUEST_BOUNDS_S, 3)
    series.statements, series.waited_s, series.sent_s = 5, 0.5, 0.25
    keys = [("GET", "shop/<int:seat>/", 200), ("DELETE", "", 404), ("POST", "^é$", 500)]
    return Row(
        Gauges(HERE, 2, 4, 1, 3, 20, 10, 1, 2, 1.5),
        Totals(1, 2, 3, tuple(range(len(SHED_REASONS))), tuple(range(len(END_REASONS)))),
        histogram(REQUEST_BOUNDS_S, 2),
        databases,
        dict.fromkeys(keys, series),
    )


def test_what_is_written_is_read(path: Path) -> None:
    writer, board = Writer(path), Board(path)
    row = full_row()
    writer.write(row)
    assert list(map(described, board.rows())) == [described(row)]
    smaller = replace(row, databases=(*row.databases, row.databases[0]), series={})
    writer.write(smaller)
    assert list(map(described, board.rows())) == [described(replace(smaller, databases=row.databases))]
    board.close()


def test_a_long_route_is_cut_between_characters(path: Path) -> None:
    writer, board = Writer(path), Board(path)
    writer.write(Row(Gauges(HERE), series={("GET", "é" * 200, 200): Series(), ("GET", "x", 200): Series()}))
    (row,) = board.rows()
    assert [route for _, route, _ in row.series] == ["é" * 93 + "…", "x"]
    board.close()


def served(method: str, route: str, status: int, total_s: float = 0.5) -> Times:
    times = Times(method, 0.1)
    times.route, times.status, times.total_s, times.statements = route, status, total_s, 3
    return times


def test_a_recorder_writes_what_a_tally_counts(path: Path) -> None:
    board, tally = Board(path), Tally()
    database = Database("default", DatabaseGauges(1, 1, 0, 0, 1, 20))
    recorded = recorder(path, tally, [database])
    recorded.record(100.0)
    for duration_s, failed in [(0.0004, False), (0.03, True), (10_000, False)]:
        tally.count(duration_s, failed=failed, times=served("GET", "", 200, duration_s))
    tally.shed["overload"] = 2
    tally.busy, tally.queued, tally.oldest_wait_s, tally.peak_queued = 4, 3, 0.25, 9
    recorded.record(102.0)
    (row,) = board.rows()
    assert row.gauges == Gauges(HERE, 2, row.gauges.began, 4, 4, 3, 9, 250, 1000, requests_per_s=1.5)
    assert (row.totals.requests, row.totals.errors, sum(row.totals.shed)) == (3, 1, 2)
    assert [bound for bound, count in enumerate(row.durations.counts) if count] == [0, 3, len(REQUEST_BOUNDS_S)]
    assert row.databases[0].gauges == database.gauges
    recorded.record(112.0)
    (row,) = board.rows()
    assert row.gauges.requests_per_s == pytest.approx(0.25)
    assert row.gauges.peak_queued == 9
    board.close()


def test_routes_are_told_apart_as_long_as_there_is_room(path: Path) -> None:
    tally, board = Tally(), Board(path)
    for number in range(2 * MOST_SERIES):
        tally.count(0.5, failed=False, times=served("GET", f"page {number}/", 200))
    tally.count(0.5, failed=False, times=served("BREW", "page 0/", 404))
    tally.count(0.5, failed=False, times=served("GET", "page 0/", 200))
    assert len(tally.series) <= MOST_SERIES
    assert tally.series["GET", "page 0/", 200].durations.count == 2
    assert tally.series["_OTHER", "_OTHER", 400].statements == 3
    assert sum(one.durations.count for one in tally.series.values()) == tally.waits.count == 2 * MOST_SERIES + 2
    recorder(path, tally).record(1.0)
    (row,) = board.rows()
    assert row.series.keys() == tally.series.keys()
    board.close()


def a_worker_of(path: Path, requests: int, reason: str | None) -> None:
    """Counts, and ends for a reason, or without having told one."""
    tally = Tally()
    databases = [Database("default", DatabaseGauges(1), DatabaseTotals(checkouts=requests))]
    writer = Writer(path)
    recorded = Recorder(writer, Recorded(1, 1, lambda: databases, str, lambda: 0), tally, None)
    for _ in range(requests):
        tally.count(0.5, failed=True, times=served("GET", "page/", 200))
    recorded.record(1.0)
    if reason is not None:
        writer.tell_end(reason)
        writer.tell_end("stopped")
    os.kill(os.getpid(), signal.SIGKILL)


def run(target: Any, *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()


def test_a_row_goes_on_counting_from_what_it_says(path: Path) -> None:
    board = Board(path)
    for life, reason in enumerate(["max_requests", None, "timeout"], start=1):
        run(a_worker_of, path, 2, reason)
        (row,) = board.rows()
        assert not row.lives
        assert (row.totals.requests, row.totals.errors) == (2 * life, 2 * life)
        assert row.durations.count == row.waits.count == row.series["GET", "page/", 200].durations.count == 2 * life
        assert row.databases[0].totals.checkouts == 2 * life
        assert sum(row.totals.ends) == life
    ends = dict(zip(END_REASONS, row.totals.ends, strict=True))
    assert (ends["max_requests"], ends["crashed"], ends["timeout"]) == (1, 1, 1)
    writer = Writer(path)
    (row,) = board.rows()
    assert row.lives
    assert (row.totals.requests, sum(row.totals.ends), row.gauges) == (6, 3, Gauges(HERE))
    assert row.databases[0].gauges == DatabaseGauges()
    assert writer.before.totals == row.totals
    board.close()


def test_the_sum_of_rows() -> None:
    one = full_row()
    both = summed([one, one])
    assert (both.totals.requests, both.totals.shed) == (2, tuple(2 * count for count in one.totals.shed))
    assert both.series["DELETE", "", 404].statements == 10
    assert both.durations.count == 2 * one.durations.count
    assert both.databases[1].gauges == DatabaseGauges(2, 4, 6, 8, 10, 6, 14)
    assert both.databases[1].uses.sum_s == 2 * one.databases[1].uses.sum_s
    assert summed([]).totals == Totals()


def test_a_row_that_cannot_be_written_is_logged_once_and_does_not_stop_the_next(path: Path) -> None:
    board, tally, logged = Board(path), Tally(), []
    log = SimpleNamespace(exception=logged.append)
    recorded = recorder(path, tally, log=log)
    tally.busy = -1
    for _ in range(2):
        recorded.record_guarded()
    assert logged == ["Cannot write the figures of this worker; trying again"]
    tally.busy = 1
    recorded.record_guarded()
    assert next(board.rows()).gauges.busy == 1
    tally.busy = -1
    recorded.record_guarded()
    assert len(logged) == 2
    board.close()


def test_the_supervisor_tells_all_workers_that_the_site_stops(path: Path) -> None:
    writers, board = [Writer(path)], Notice(path)
    assert not writers[0].site_is_stopping
    board.tell_stopping()
    assert writers[0].site_is_stopping
    assert writers[0].opened_generation == 0
    board.tell_opened(70_000)
    assert writers[0].opened_generation == 70_000
    assert writers[0].site_is_stopping


def write_for_ever(path: Path, number: int) -> None:
    writer = Writer(path)
    numbers = Histogram(REQUEST_BOUNDS_S, [number] * (len(REQUEST_BOUNDS_S) + 1))
    row = Row(Gauges(os.getpid(), threads=number), Totals(number), numbers)
    while True:
        writer.write(row)


def test_readers_see_whole_rows_and_outlive_killed_writers(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(path, number)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    board = Board(path)
    while {row.gauges.threads for row in board.rows()} != {1, 2}:
        pass
    for _ in range(200):
        for row in board.rows():
            assert row.lives
            assert len({row.gauges.threads, row.totals.requests, *row.waits.counts}) == 1
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert {row.gauges.threads for row in board.rows() if not row.lives} == {1, 2}
    after = context.Process(target=write_for_ever, args=(path, 3))  # whose row takes the place of a dead writer's
    after.start()
    while 3 not in {row.gauges.threads for row in board.rows()}:
        pass
    assert [row.lives for row in board.rows()] == [True, False]
    after.kill()
    after.join()
    board.close()


def count_up(path: Path) -> None:
    writer, number = Writer(path), 0
    while True:
        number += 1
        writer.write(Row(Gauges(os.getpid()), Totals(number, ends=writer.before.totals.ends)))


def test_a_row_is_there_and_never_falls_whenever_its_worker_is_killed(path: Path) -> None:
    """A sequence number that was written byte by byte was 0 for a moment: who died then had no row."""
    board, seen = Board(path), 0
    for _ in range(30):
        writer = multiprocessing.get_context("fork").Process(target=count_up, args=(path,))
        writer.start()
        while not (found := [row.totals.requests for row in board.rows() if row.lives]) or found[0] < 5:
            pass
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        (row,) = board.rows()
        assert sum(row.totals.ends) == (seen := seen + 1)
    board.close()


def test_a_row_left_half_written_is_read_and_inherited(path: Path) -> None:
    writer, board = Writer(path), Board(path)
    writer.write(Row(Gauges(HERE)))
    writer._words[writer._start // 8] = 5
    assert [row.gauges.pid for row in board.rows()] == [HERE]
    writer.write(Row(Gauges(HERE, busy=1)))
    assert [row.gauges.busy for row in board.rows()] == [1]
    assert writer._words[writer._start // 8] == 6
    board.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(bytes(32 + 1024 * ROWS))
    with pytest.raises(ConfigurationError, match="not a stats board of this version"):
        Board(tmp_path / "board")


def test_a_row_has_its_room_before_it_is_mapped(path: Path) -> None:
    """A worker that wrote where a full disk has none would die of SIGBUS; rows without a worker take none."""
    empty = path.stat().st_blocks
    Writer(path)
    assert path.stat().st_blocks * 512 >= empty * 512 + path.stat().st_size // ROWS // 2
    assert path.stat().st_blocks * 512 < path.stat().st_size // 2


def test_a_disk_without_room_is_told() -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        create(Path("/nowhere/board"))


def test_a_dump_is_written_once_for_each_that_was_asked_for(path: Path) -> None:
    board, logged = Notice(path), []
    log = SimpleNamespace(warning=lambda text, dump: logged.append(text % dump), exception=logged.append)
    recorded = recorder(path, Tally(), log=log, dump="all is quiet")
    recorded.answer_dump()
    assert board.ask_dump() == 1
    recorded.answer_dump()
    assert dump_path(path, 1, HERE).read_text() == "all is quiet"
    dump_path(path, 1, HERE).unlink()
    board.ask_dump(in_log=True)
    for _ in range(2):
        recorded.answer_dump()
    assert logged == ["The threads of this worker:\nall is quiet"]
    assert not dump_path(path, 1, HERE).exists()
    board.close()
