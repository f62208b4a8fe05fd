"""The listening sockets and the TLS files, opened before anything is started, so that a mistake starts nothing."""

import errno
import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fullhouse.errors import ConfigurationError, ListenError
from fullhouse.supervisor.port_owner import owner_of_port


@contextmanager
def listening(
    addresses: Sequence[str], backlog: int, umask: int = 0, option: str = "--bind"
) -> Iterator[list[socket.socket]]:
    """Sockets that listen on `addresses` (HOST:PORT, [V6]:PORT, unix:PATH), inheritable by gunicorn.

    umask: for the files of Unix sockets. By default everybody may connect, as with gunicorn and a port: nginx runs as
    another user, and the folder says who may come in. option: where an address comes from, for the words of an error.

    On leaving they are closed and the files of Unix sockets removed, but only by the process that opened them: a
    worker forked meanwhile leaves through here too. Raises ListenError.
    """
    owner = os.getpid()
    sockets: list[socket.socket] = []
    paths: list[str] = []
    try:
        for address in addresses:
            if address.startswith("unix:"):
                sockets.append(_open_unix(address, umask, option))
                paths.append(address.removeprefix("unix:"))
            else:
                sockets.append(_open_tcp(address, option))
            sockets[-1].listen(backlog)
            sockets[-1].set_inheritable(True)
        yield sockets
    finally:
        for opened in sockets:
            opened.close()
        for path in paths:
            if os.getpid() == owner and os.path.exists(path):  # gunicorn removes those it has closed
                os.unlink(path)


def _open_tcp(address: str, option: str) -> socket.socket:
    host, port = _split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _explained(address, error, option) from error
    return listener


def _split(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8000) of "127.0.0.1:8000"; a bare port means 127.0.0.1."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _open_unix(address: str, umask: int, option: str) -> socket.socket:
    path = address.removeprefix("unix:")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(umask)
    try:
        _remove_dead_socket(path)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise _explained(address, error, option) from error
    finally:
        os.umask(before)
    return listener


def _remove_dead_socket(path: str) -> None:
    """Remove the socket file of a server that is gone; a file of any other kind, or a live server, stays."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            pass  # alive: its queue of connections is full


def _explained(address: str, error: OSError, option: str) -> ListenError:
    path = address.removeprefix("unix:")
    if path != address and error.errno == errno.EADDRINUSE and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return ListenError(
            f"Cannot listen on {address}: a file that is not a socket exists there.\n"
            f"It was left unchanged: choose another path with {option}."
        )
    if isinstance(error, socket.gaierror):
        return ListenError(
            f"Cannot listen on {address}: {error.strerror}.\n"
            "Correct the name of the host, or write its address: 127.0.0.1, or 0.0.0.0 for all interfaces."
        )
    if error.errno == errno.EADDRINUSE:
        owner = "" if path != address else owner_of_port(_split(address)[1])
        return ListenError(
            f"Cannot listen on {address}: {owner or 'another program'} is listening there.\n"
            f"Stop it, or choose another address with {option}."
        )
    remedy = {
        errno.EADDRNOTAVAIL: f"No interface of this machine has that address: choose another with {option}.",
        errno.ENOENT: f"Its folder does not exist: create it, or choose another path with {option}.",
        errno.EACCES: f"Permission denied: choose a port above 1023, or another path, with {option}.",
    }.get(error.errno or 0, f"Choose another address with {option}.")
    return ListenError(f"Cannot listen on {address}: {error.strerror or error}.\n{remedy}")


def check_tls(certfile: str | None, keyfile: str | None) -> None:
    """Load the certificate and its key once, to refuse bad ones before anything starts. Raises ConfigurationError."""
    if certfile is None:
        if keyfile is not None:
            raise ConfigurationError(f"keyfile is {keyfile}, but there is no certfile: give both with --certfile.")
        return
    for name, path in (("certfile", certfile), ("keyfile", keyfile)):
        if path is not None and not os.access(path, os.R_OK):
            fact = "is not readable by this user" if os.path.exists(path) else "does not exist"
            raise ConfigurationError(f"{name} {path} {fact}.\nCorrect the path or its permissions.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"TLS: {certfile} and {keyfile or 'the key in it'} do not load as a certificate and its key: {error}.\n"
            "Both must be PEM, and the key must belong to the certificate."
        ) from error
