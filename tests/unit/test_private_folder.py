"""The folder of the slot files: where it is, whose it is, what the files are called."""

import fcntl
import os
import stat

import pytest

from fullhouse.budget.slots import slot_path
from fullhouse.errors import ConfigurationError
from fullhouse.private_folder import open_private_folder, runtime_folder


class TestRuntimeFolder:
    def test_is_the_system_folder_for_who_may_make_it(self, tmp_path):
        system = tmp_path / "run"
        for _ in range(2):
            assert runtime_folder(system, tmp_path) == system
        assert stat.S_IMODE(system.stat().st_mode) == 0o700

    def test_is_in_the_temporary_folder_for_others(self, tmp_path):
        folder = runtime_folder(tmp_path / "missing" / "run", tmp_path)
        assert folder == tmp_path / f"fullhouse-{os.geteuid()}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_does_not_depend_on_the_session(self, tmp_path, monkeypatch):
        before = runtime_folder(tmp_path / "run", tmp_path)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
        monkeypatch.setenv("TMPDIR", str(tmp_path / "session"))
        assert runtime_folder(tmp_path / "run", tmp_path) == before

    def test_put_there_by_somebody_else_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        (tmp_path / "target").mkdir(mode=0o700)
        (tmp_path / f"fullhouse-{os.geteuid()}").symlink_to("target")
        with pytest.raises(ConfigurationError, match=r"symbolic link(.|\n)*FULLHOUSE_RUNTIME_FOLDER"):
            runtime_folder(tmp_path / "missing" / "run", tmp_path)

    @pytest.mark.parametrize(
        ("variable", "value", "folder"),
        [("RUNTIME_DIRECTORY", "service:other", "service"), ("XDG_RUNTIME_DIR", "login", "login/fullhouse")],
    )
    def test_somebody_else_cannot_stop_a_service_or_a_login(self, tmp_path, monkeypatch, variable, value, folder):
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        (tmp_path / f"fullhouse-{os.geteuid()}").symlink_to("target")
        (tmp_path / value.partition(":")[0]).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / value))
        assert runtime_folder(tmp_path / "missing" / "run", tmp_path) == tmp_path / folder
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700

    def test_is_the_one_that_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FULLHOUSE_RUNTIME_FOLDER", str(tmp_path / "named"))
        assert runtime_folder(tmp_path / "run", tmp_path) == tmp_path / "named"
        monkeypatch.setenv("FULLHOUSE_RUNTIME_FOLDER", str(tmp_path / "missing" / "named"))
        with pytest.raises(ConfigurationError, match="missing/named cannot be opened"):
            runtime_folder(tmp_path / "run", tmp_path)

    def test_on_a_read_only_file_system_is_another(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "service"))
        unwritable = tmp_path / f"fullhouse-{os.geteuid()}"
        monkeypatch.setattr(os, "access", lambda path, mode: path != unwritable)
        assert runtime_folder(tmp_path / "missing" / "run", tmp_path) == tmp_path / "service"


class TestPrivateFolder:
    @pytest.mark.parametrize("mode", [0o700, 0o755])
    def test_others_may_look_in(self, tmp_path, mode):
        tmp_path.chmod(mode)
        os.close(open_private_folder(tmp_path))

    @pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
    def test_others_may_not_write(self, tmp_path, mode):
        tmp_path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*chmod 0755"):
            open_private_folder(tmp_path)

    def test_of_another_user(self, tmp_path, monkeypatch):
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(ConfigurationError, match=f"belongs to uid {owner}.* runs as uid {owner + 1}"):
            open_private_folder(tmp_path)

    def test_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="Not a directory"):
            open_private_folder(tmp_path / "file")

    def test_is_marked_as_in_use_for_cleaners(self, tmp_path):
        descriptor = open_private_folder(tmp_path)
        cleaner = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(cleaner)
        os.close(descriptor)


class TestSlotPath:
    def test_is_readable(self, tmp_path):
        path = slot_path(tmp_path, "DB.example.com:3306", "shop")
        assert path.parent == tmp_path
        assert path.name.startswith("shop-at-db-example-com-3306-")
        assert path == slot_path(tmp_path, "DB.example.com:3306", "shop")

    def test_is_unique(self, tmp_path):
        pairs = [
            ("a-b", "c"),
            ("a.b", "c"),
            ("b", "c-at-a"),
            ("a", "b\0c"),
            ("a\0b", "c"),
            ("", ""),
            ("x" * 300, "ü"),
        ]
        names = {slot_path(tmp_path, server, user).name for server, user in pairs}
        assert len(names) >= len(pairs) - 1
        assert all(len(name) < 100 and name.isascii() and "/" not in name for name in names)
