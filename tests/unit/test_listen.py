"""The listening sockets and the TLS files: refused in one message, with nothing left behind."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fullhouse.errors import ConfigurationError, ListenError
from fullhouse.supervisor.listen import check_tls, listening
from support import make_certificate


def accepts(listener: socket.socket) -> bool:
    with socket.socket(listener.family, socket.SOCK_STREAM) as client:
        client.connect(listener.getsockname())
        listener.accept()[0].close()
        return True


def test_tcp_and_unix_sockets_listen_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with listening(["127.0.0.1:0", "[::1]:0", ":0", f"unix:{path}"], backlog=8) as sockets:
        assert [one.family for one in sockets] == [socket.AF_INET, socket.AF_INET6, socket.AF_INET, socket.AF_UNIX]
        assert all(one.get_inheritable() and accepts(one) for one in sockets)
        assert sockets[2].getsockname()[0] == "127.0.0.1"
    assert not path.exists()
    assert all(one.fileno() == -1 for one in sockets)


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o777), (0o077, 0o700)])
def test_everybody_may_connect_unless_the_umask_says_no(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "site.sock"
    with listening([f"unix:{path}"], 8, umask):
        assert path.stat().st_mode & 0o777 == mode


def test_a_forked_worker_that_leaves_removes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    script = (
        "import os, sys\n"
        "from fullhouse.supervisor.listen import listening\n"
        "with listening(['unix:' + sys.argv[1]], 8):\n"
        "    if os.fork():\n"
        "        os.wait()\n"
        "        print(os.path.exists(sys.argv[1]))\n"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert answer.stdout == "True\n"
    assert not path.exists()


def refusal(*addresses: str) -> str:
    with pytest.raises(ListenError) as refused, listening(addresses, backlog=8):
        pass
    return str(refused.value)


def test_a_busy_port_is_refused_and_the_first_address_given_back(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with listening(["127.0.0.1:0"], backlog=8) as (busy,):
        port = busy.getsockname()[1]
        said = refusal(f"unix:{path}", f"127.0.0.1:{port}")
        assert said.startswith(f"Cannot listen on 127.0.0.1:{port}: pid {os.getpid()} (")
        assert said.endswith("is listening there.\nStop it, or choose another address with --bind.")
    assert not path.exists()


def test_an_address_of_another_machine_is_refused() -> None:
    assert "No interface of this machine has that address" in refusal("192.0.2.1:80")


def test_an_unknown_host_is_refused() -> None:
    assert "Correct the name of the host" in refusal("no such host:80")


def test_a_socket_left_by_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening([f"unix:{path}"], backlog=8) as (fresh,):
        assert accepts(fresh)


@pytest.mark.parametrize("queued", [0, 2])
def test_a_socket_of_a_living_server_is_left_to_it(tmp_path: Path, queued: int) -> None:
    address = f"unix:{tmp_path / 'site.sock'}"
    with listening([address], backlog=1) as (living,):
        clients = [socket.socket(socket.AF_UNIX) for _ in range(queued)]
        for client in clients:
            client.connect(living.getsockname())  # a full queue must not block the probe
        assert "another program is listening there" in refusal(address)
        for client in clients:
            client.close()
        assert (tmp_path / "site.sock").exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    assert "a file that is not a socket exists there" in refusal(f"unix:{path}")
    assert path.read_text() == "keep me"


def test_a_missing_folder_is_named_as_the_cause(tmp_path: Path) -> None:
    assert "Its folder does not exist" in refusal(f"unix:{tmp_path}/none/site.sock")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two certificates and their keys: a.crt, a.key, b.crt, b.key."""
    folder = tmp_path_factory.mktemp("tls")
    for name in "ab":
        make_certificate(folder / f"{name}.crt", folder / f"{name}.key")
    both = (folder / "a.crt").read_text() + (folder / "a.key").read_text()
    (folder / "both.pem").write_text(both)
    return folder


def test_good_tls_files_are_accepted(tls: Path) -> None:
    check_tls(None, None)
    check_tls(str(tls / "a.crt"), str(tls / "a.key"))
    check_tls(str(tls / "both.pem"), None)


@pytest.mark.parametrize(
    ("certfile", "keyfile", "message"),
    [
        ("none.crt", "a.key", r"^certfile .*none\.crt does not exist\."),
        ("a.crt", "none.key", r"^keyfile .*none\.key does not exist\."),
        ("a.crt", "b.key", r"^TLS: .* do not load .*key must belong to the certificate\.$"),
        ("a.crt", None, r"^TLS: .*a\.crt and the key in it do not load"),
        ("a.key", "a.key", r"^TLS: .* do not load"),
        (".", "a.key", r"^TLS: .* do not load"),
        (None, "a.key", r"^keyfile is .*a\.key, but there is no certfile"),
    ],
)
def test_bad_tls_files_are_refused(tls: Path, certfile: str | None, keyfile: str | None, message: str) -> None:
    paths = [None if name is None else str(tls / name) for name in (certfile, keyfile)]
    with pytest.raises(ConfigurationError, match="(?s)" + message):
        check_tls(*paths)


def test_the_certificate_of_another_user_is_refused(tls: Path) -> None:
    """As nobody where root runs the tests, because root may read everything."""
    script = (
        "import os, sys\n"
        "from fullhouse.errors import ConfigurationError\n"
        "from fullhouse.supervisor.listen import check_tls\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: check_tls(sys.argv[1], None)\n"
        "except ConfigurationError as error: print(error)\n"
    )
    secret = tls / "secret.pem"
    secret.write_bytes((tls / "both.pem").read_bytes())
    secret.chmod(0o000)
    answer = subprocess.run([sys.executable, "-c", script, str(secret)], capture_output=True, text=True, check=True)
    where = f"certfile {secret} "
    assert answer.stdout.startswith(where), answer.stderr
    # pytest's folder is closed to other users, so that nobody cannot even see the file.
    assert "is not readable by this user" in answer.stdout or os.geteuid() == 0
