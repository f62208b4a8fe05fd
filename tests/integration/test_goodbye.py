"""A session that was closed here and is not gone there: its slot is nobody's until the server has let it go."""

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from dbsupport import Database, create_tables, request, wait_until
from private_servers import PrivateServer

LOOKS = 20


class SlowProxy:
    """Forwards to a server. While `holds` is set, nothing that clients send reaches it: no goodbye, and no end."""

    def __init__(self, server: PrivateServer, port: int = 0) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._stop = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def hold(self) -> None:
        self._go_on.clear()

    def let_go(self) -> None:
        self._go_on.set()

    def close(self) -> None:
        self._stop.set()
        self._go_on.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection((self._server.host, self._server.port))
            thread = threading.Thread(target=self._forward, args=(client, upstream))
            self._threads.append(thread)
            thread.start()

    def _forward(self, client: socket.socket, upstream: socket.socket) -> None:
        with client, upstream, suppress(OSError):
            open_ends = {client, upstream}
            while upstream in open_ends and not self._stop.is_set():
                for end in select.select(list(open_ends), [], [], 0.05)[0]:
                    other = upstream if end is client else client
                    data = end.recv(65536)
                    if end is client:
                        self._go_on.wait()
                    if data:
                        other.sendall(data)
                    else:
                        open_ends.discard(end)
                        other.shutdown(socket.SHUT_WR)


@pytest.fixture(params=["mysql", "postgresql"])
def behind(request: pytest.FixtureRequest) -> Iterator[tuple[Database, SlowProxy]]:
    server: PrivateServer = request.getfixturevalue(f"{request.param}_server")
    create_tables(server)
    proxy = SlowProxy(server)
    try:
        database = Database(server, "behind", PORT=str(proxy.port), NAME=server.database)
        with database.tried(slots=1, fair_share=1):
            yield database, proxy
    finally:
        proxy.close()


def test_no_second_session_before_the_first_has_gone(behind: tuple[Database, SlowProxy]) -> None:
    database, proxy = behind
    with request():
        first = database.session()
    with ThreadPoolExecutor(1) as thread:
        proxy.hold()
        lender = database.pool
        lender.checkin(lender.checkout(), broken=True)
        second = thread.submit(database.session)
        for _ in range(LOOKS):
            assert list(database.observer.sessions()) == [first]
            assert database.pool.statistics().slots_held == 1
        assert not second.done()
        proxy.let_go()
        assert second.result() != first
    wait_until(lambda: first not in database.observer.sessions())
