"""How commands reach a running supervisor: one JSON line there, one JSON line back, over a Unix socket.

The server lives in the supervisor's loop and never waits. Whatever a client sends or leaves unsent, the site goes on:
a request has at most LONGEST bytes and PATIENCE_S seconds, and there are at most CLIENTS of them.
"""

import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fullhouse.errors import NotRunningError

LONGEST = 4096
PATIENCE_S = 5.0
CLIENTS = 16


class Client:
    """A connected client; `answer` may come at any later time."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.since = time.monotonic()
        self.received = b""
        self.has_asked = False

    def answer(self, reply: Mapping[str, Any]) -> None:
        """Send the reply and hang up. A client that has gone, or does not read, loses it."""
        with suppress(OSError):
            self.connection.send(json.dumps(reply).encode() + b"\n")
        self.connection.close()


class ControlServer:
    """handle: is given each request, a dict, and its client."""

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, handle: Callable[[Mapping[str, Any], Client], None]
    ) -> None:
        self._path = path
        self._selector = selector
        self._handle = handle
        self._clients: list[Client] = []
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(CLIENTS)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener.close()
        for client in self._clients:
            client.connection.close()

    def _accept(self) -> None:
        with suppress(OSError):  # gone again, or more than we may open
            connection, _ = self._listener.accept()
            now = time.monotonic()
            silent = [client for client in self._clients if not client.has_asked]
            for client in silent:
                if now - client.since > PATIENCE_S or len(silent) >= CLIENTS:
                    self._drop(client)
            if _user_of(connection) not in (os.geteuid(), 0):
                connection.close()
                return
            connection.setblocking(False)
            client = Client(connection)
            self._clients.append(client)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        line, newline, _ = client.received.partition(b"\n")
        if not newline:
            if not data or len(client.received) > LONGEST:
                self._drop(client)
            return
        self._forget(client)
        client.has_asked = True
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if isinstance(request, dict):
            self._handle(request, client)
        else:
            client.answer({"ok": False, "message": "A request is one line with a JSON object."})

    def _drop(self, client: Client) -> None:
        self._forget(client)
        client.connection.close()

    def _forget(self, client: Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.connection)


def _user_of(connection: socket.socket) -> int:
    if sys.platform != "linux":
        return os.geteuid()  # the folder, which is ours alone, is the guard
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


def ask(path: Path, request: Mapping[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
    """Send a request and wait for the reply, some of them for long: by default without a limit.

    Raises NotRunningError where the supervisor ends meanwhile, or does not answer in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
        except OSError as error:
            raise NotRunningError(f"The supervisor does not answer on {path}: {error.strerror or error}.") from error
    if not line:
        raise NotRunningError(f"The supervisor at {path} ended before it answered.")
    reply: dict[str, Any] = json.loads(line)
    return reply
