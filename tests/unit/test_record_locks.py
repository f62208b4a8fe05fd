"""The layout of `struct flock` and the walk over other processes' locks, against the kernel."""

import errno
import fcntl
import os

import pytest
from slot_process import SlotProcess

from fullhouse.budget.slots import SlotFile
from fullhouse.errors import ConfigurationError
from fullhouse.record_locks import (
    lock_of_another,
    lock_shared,
    locked_by_others,
    try_lock,
    unlock,
)


@pytest.fixture
def file(tmp_path):
    return SlotFile.open(tmp_path / "slots", budget=10)


def test_exact_bytes_are_told_to_another_process(file):
    with SlotProcess(file.path) as other:
        assert other.locks() == []
        assert try_lock(file.descriptor, 3)
        assert try_lock(file.descriptor, 4)
        lock_shared(file.descriptor, 2**40, 5)
        assert other.locks() == [(3, 5), (2**40, 2**40 + 5)]
        unlock(file.descriptor, 3, 1)
        assert other.locks() == [(4, 5), (2**40, 2**40 + 5)]


def test_own_locks_are_no_obstacle(file):
    assert try_lock(file.descriptor, 3)
    assert lock_of_another(file.descriptor, 0, 10) is None
    assert try_lock(file.descriptor, 3)


def test_locks_of_several_processes_are_walked_in_full(file):
    with SlotProcess(file.path) as first, SlotProcess(file.path) as second, SlotProcess(file.path) as third:
        for taker in (first, second, first, third, second):
            taker.call("acquire_nowait")
        third.call("release", 3)
        found = sorted((lock.start, lock.stop) for lock in locked_by_others(file.descriptor, 0, 10))
        assert found == [(0, 1), (1, 2), (2, 3), (4, 5)]


def test_a_lock_on_everything_is_cut_to_the_range_asked_for(file):
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.lockf(file.descriptor, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    found = list(locked_by_others(file.descriptor, 2, 10))
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert found == [range(2, 10)]


def test_no_locks_left_in_the_kernel_is_explained(file, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(ConfigurationError, match="ENOLCK"):
        try_lock(file.descriptor, 0)


def test_other_errors_are_raised_as_they_are(file):
    with pytest.raises(OSError, match="Bad file descriptor"):
        try_lock(10_000, 0)
