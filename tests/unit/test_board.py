"""The stats board: rows of their own, readers that see whole rows, writers that may die."""

import multiprocessing
import os
import signal
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.telemetry.board import DATABASES, ROWS, Board, Counters, Database, Row, Writer, create, dump_path
from fullhouse.telemetry.recorder import Recorder
from fullhouse.telemetry.tally import BUCKETS, Tally

NOTHING = (0,) * BUCKETS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "board")
    return tmp_path / "board"


def test_what_is_written_is_read(path: Path) -> None:
    writer, board = Writer(path), Board(path)
    assert list(board.rows()) == []
    databases = tuple(Database(f"alias {number}", number, 2, 3, 4, 5, 6) for number in range(DATABASES))
    row = Row(Counters(7, 2, 4, 1, 3, 20, 10, 1, 2, 1.5), tuple(range(BUCKETS)), databases)
    writer.write(row)
    assert list(board.rows()) == [row]
    writer.write(Row(Counters(7), NOTHING, (*databases, databases[0])))
    assert list(board.rows()) == [Row(Counters(7), NOTHING, databases)]
    board.close()


def test_a_recorder_writes_what_a_tally_counts(path: Path) -> None:
    board, tally = Board(path), Tally()
    database = Database("default", 1, 1, 0, 0, 1, 20)
    recorder = Recorder(Writer(path), (7, 2, 4), tally, lambda: [database], str, None)
    recorder.record(100.0)
    for duration_s, failed in [(0.0004, False), (0.003, True), (10_000, False)]:
        tally.count(duration_s, failed=failed)
    tally.busy, tally.queued, tally.oldest_wait_s = 4, 3, 0.25
    recorder.record(102.0)
    (row,) = board.rows()
    assert row.counters == Counters(7, 2, 4, 4, 3, 250, 3, 1, 0, requests_per_s=1.5)
    assert {bucket: count for bucket, count in enumerate(row.latency) if count} == {0: 1, 2: 1, BUCKETS - 1: 1}
    assert row.databases == (database,)
    recorder.record(112.0)
    assert next(board.rows()).counters.requests_per_s == pytest.approx(0.25)


def test_a_row_that_cannot_be_written_is_logged_once_and_does_not_stop_the_next(path: Path) -> None:
    board, tally, logged = Board(path), Tally(), []
    log = SimpleNamespace(exception=logged.append)
    recorder = Recorder(Writer(path), (7, 2, 4), tally, list, str, log)
    tally.busy = -1
    for _ in range(2):
        recorder.record_guarded()
    assert logged == ["Cannot write the figures of this worker; trying again"]
    tally.busy = 1
    recorder.record_guarded()
    assert next(board.rows()).counters.busy == 1
    tally.busy = -1
    recorder.record_guarded()
    assert len(logged) == 2
    board.close()


def test_the_supervisor_tells_all_workers_that_the_site_stops(path: Path) -> None:
    writers, board = [Writer(path)], Board(path)
    assert not writers[0].site_is_stopping
    board.tell_stopping()
    assert writers[0].site_is_stopping
    assert writers[0].opened_generation == 0
    board.tell_opened(70_000)
    assert writers[0].opened_generation == 70_000
    assert writers[0].site_is_stopping


def write_for_ever(path: Path, pid: int) -> None:
    writer = Writer(path)
    row = Row(Counters(pid, pid, pid, requests=pid), (pid,) * BUCKETS, ())
    while True:
        writer.write(row)


def test_readers_see_whole_rows_and_outlive_killed_writers(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(path, pid)) for pid in (1, 2)]
    for writer in writers:
        writer.start()
    board = Board(path)
    while {row.counters.pid for row in board.rows()} != {1, 2}:
        pass
    for _ in range(200):
        for row in board.rows():
            counters = row.counters
            assert {counters.generation, counters.threads, counters.requests, *row.latency} == {counters.pid}
    for writer in writers:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    assert {row.counters.pid for row in board.rows()} == {1, 2}
    after = context.Process(target=write_for_ever, args=(path, 3))  # whose row takes the place of a dead writer's
    after.start()
    while 3 not in {row.counters.pid for row in board.rows()}:
        pass
    assert len(list(board.rows())) == 2
    after.kill()
    after.join()


def test_a_row_left_half_written_is_read_and_inherited(path: Path) -> None:
    writer, board = Writer(path), Board(path)
    writer.write(Row(Counters(7), NOTHING, ()))
    struct.pack_into("=Q", writer._memory, writer._start, 5)
    assert [row.counters.pid for row in board.rows()] == [7]
    writer.write(Row(Counters(7, busy=1), NOTHING, ()))
    assert [row.counters.busy for row in board.rows()] == [1]
    assert struct.unpack_from("=Q", writer._memory, writer._start) == (6,)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(bytes(32 + 1024 * ROWS))
    with pytest.raises(ConfigurationError, match="not a stats board of this version"):
        Board(tmp_path / "board")


def test_has_its_room_from_the_start(tmp_path: Path) -> None:
    """A worker that wrote where a full disk has none would die of SIGBUS."""
    create(tmp_path / "board")
    found = (tmp_path / "board").stat()
    assert found.st_blocks * 512 >= found.st_size


def test_a_disk_without_room_is_told() -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file"):
        create(Path("/nowhere/board"))


def test_a_dump_is_written_once_for_each_that_was_asked_for(path: Path) -> None:
    board, logged = Board(path), []
    log = SimpleNamespace(warning=lambda text, dump: logged.append(text % dump), exception=logged.append)
    recorder = Recorder(Writer(path), (7, 2, 4), Tally(), list, lambda: "all is quiet", log)
    recorder.answer_dump()
    assert board.ask_dump() == 1
    recorder.answer_dump()
    assert dump_path(path, 1, 7).read_text() == "all is quiet"
    dump_path(path, 1, 7).unlink()
    board.ask_dump(in_log=True)
    for _ in range(2):
        recorder.answer_dump()
    assert logged == ["The threads of this worker:\nall is quiet"]
    assert not dump_path(path, 1, 7).exists()
    board.close()
