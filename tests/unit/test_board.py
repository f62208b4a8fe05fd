"""The stats board: rows of their own, readers that see whole rows, writers that may die."""

import multiprocessing
import os
import signal
import struct
from pathlib import Path

import pytest

from fullhouse.errors import ConfigurationError
from fullhouse.telemetry.board import BUCKETS, ROWS, Reader, Writer, create


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / "board")
    return tmp_path / "board"


def test_what_is_written_is_read(path: Path) -> None:
    writer, reader = Writer(path, pid=7, generation=2, threads=4), Reader(path)
    writer.began()
    writer.began()
    writer.finished(0.0004, failed=False)
    writer.finished(0.003, failed=True)
    writer.began()
    writer.finished(10_000, failed=False)
    writer.began()
    writer.set(queued=3, slots=5)
    (row,) = reader.rows()
    counters = row.counters
    assert (counters.pid, counters.generation, counters.threads) == (7, 2, 4)
    assert (counters.busy, counters.requests, counters.errors) == (1, 3, 1)
    assert (counters.queued, counters.slots) == (3, 5)
    assert {bucket: count for bucket, count in enumerate(row.latency) if count} == {0: 1, 2: 1, BUCKETS - 1: 1}
    writer.close()
    assert list(reader.rows()) == []
    reader.close()


def write_for_ever(path: Path, pid: int) -> None:
    writer = Writer(path, pid, generation=pid, threads=pid)
    while True:
        writer.set(requests=pid, errors=pid, shed=pid)


def test_readers_see_whole_rows_and_outlive_killed_writers(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_for_ever, args=(path, pid)) for pid in (1, 2)]
    for writer in writers:
        writer.start()
    reader = Reader(path)
    while {row.counters.pid for row in reader.rows()} != {1, 2}:
        pass
    for _ in range(200):
        for row in reader.rows():
            counters = row.counters
            assert {counters.generation, counters.threads} == {counters.pid}
            assert {counters.requests, counters.errors, counters.shed} <= {0, counters.pid}
    for writer in writers:
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
    assert {row.counters.pid for row in reader.rows()} == {1, 2}
    # The rows of the dead are free again.
    heir = Writer(path, pid=3, generation=1, threads=1)
    assert 3 in {row.counters.pid for row in reader.rows()}
    assert len(list(reader.rows())) == 2
    heir.close()
    reader.close()


def test_a_row_left_half_written_is_read_and_inherited(path: Path) -> None:
    writer = Writer(path, pid=7, generation=1, threads=1)
    struct.pack_into("=Q", writer._memory, writer._start, 5)
    reader = Reader(path)
    assert [row.counters.pid for row in reader.rows()] == [7]
    writer.began()
    assert [row.counters.busy for row in reader.rows()] == [1]
    assert struct.unpack_from("=Q", writer._memory, writer._start) == (6,)
    writer.close()
    reader.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(bytes(32 + 512 * ROWS))
    with pytest.raises(ConfigurationError, match="no stats board of this version"):
        Reader(tmp_path / "board")
