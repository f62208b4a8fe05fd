"""The rotating log: nothing lost, nothing beyond the bound, and no error from a disk that refuses."""

from pathlib import Path

from fullhouse.supervisor.logfile import LogFile


def test_rotates_and_keeps_a_bounded_number(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "site.log", rotate_at=10, kept=2)
    for number in range(5):
        log.write(b"line %d...\n" % number)
    log.close()
    found = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert found == {"site.log": "line 4...\n", "site.log.1": "line 3...\n", "site.log.2": "line 2...\n"}


def test_goes_on_at_the_end_of_what_is_there(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        log = LogFile(tmp_path / "site.log")
        log.write(line)
        log.close()
    assert (tmp_path / "site.log").read_text() == "one\ntwo\n"


def test_a_full_disk_costs_lines_only(tmp_path: Path) -> None:
    (tmp_path / "site.log").symlink_to("/dev/full")
    log = LogFile(tmp_path / "site.log")
    log.write(b"lost\n")
    log.close()


def test_a_removed_file_is_made_anew_when_it_would_rotate(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "site.log", rotate_at=10)
    log.write(b"lost with the file\n")
    (tmp_path / "site.log").unlink()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "site.log").read_text() == "kept\n"


def test_goes_on_in_a_new_file_when_told_so(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "site.log")
    log.write(b"one\n")
    (tmp_path / "site.log").rename(tmp_path / "moved")
    log.reopen()
    log.write(b"two\n")
    log.close()
    assert [(tmp_path / name).read_text() for name in ("moved", "site.log")] == ["one\n", "two\n"]
