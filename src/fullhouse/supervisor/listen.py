"""The listening sockets and the TLS files, opened before anything is started, so that a mistake starts nothing."""

import errno
import os
import socket
import ssl
import stat
from collections.abc import Sequence

from fullhouse.errors import ConfigurationError, ListenError


def listen(addresses: Sequence[str], backlog: int) -> list[socket.socket]:
    """Sockets that listen on `addresses` (HOST:PORT, [V6]:PORT, unix:PATH), inheritable by gunicorn.

    Raises ListenError, with none left open.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets.append(_listen_unix(address) if address.startswith("unix:") else _listen_tcp(address))
            sockets[-1].listen(backlog)
            sockets[-1].set_inheritable(True)
    except BaseException:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _listen_tcp(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _explained(address, error) from error
    return listener


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8000) of "127.0.0.1:8000"; a bare port means 127.0.0.1. Raises ConfigurationError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"bind: {address!r} is no address; write HOST:PORT (port 0 to 65535) or unix:PATH.")
    return host, int(port)


def _listen_unix(address: str) -> socket.socket:
    path = address.removeprefix("unix:")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead_socket(path)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise _explained(address, error) from error
    return listener


def _remove_dead_socket(path: str) -> None:
    """Remove the socket file of a server that is gone; a file of any other kind, or a live server, stays."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _explained(address: str, error: OSError) -> ListenError:
    remedy = {
        errno.EADDRINUSE: "Another program listens there: end it, or choose another address with --bind.",
        errno.EADDRNOTAVAIL: "No interface of this machine has that address: choose another with --bind.",
        errno.EACCES: "This user may not use it: choose a port above 1023, or another path, with --bind.",
    }.get(error.errno or 0, "Choose another address with --bind.")
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
