"""A session is gone when its stream has ended, not when it was closed here: with sockets, and a server in this test."""

import os
import socket
import threading

import pytest

from fullhouse.db.closing import Wire, close_all

PATIENCE_S = 30.0  # never reached, unless a test fails
AT_ONCE_S = 0.05  # for what must not come


@pytest.fixture(params=["tcp", "unix"])
def ends(request):
    """A connected pair: the client's socket and the server's."""
    if request.param == "unix":
        pair = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            pair = client, listener.accept()[0]
    with pair[0], pair[1]:
        yield pair


def close(client, wire=None, patience_s=PATIENCE_S, by=None):
    wire = wire or Wire.of(client.fileno())
    return close_all([(wire, by or client.close)], patience_s)


def test_gone_once_the_server_ends_the_stream(ends):
    client, server = ends
    results = []
    closing = threading.Thread(target=lambda: results.append(close(client)))
    closing.start()
    assert server.recv(1) == b""  # the goodbye has come
    assert closing.is_alive()
    server.sendall(b"last words")
    assert closing.is_alive()
    server.close()
    closing.join(PATIENCE_S)
    assert results == [[True]]


def test_not_gone_while_the_server_keeps_it(ends):
    client, server = ends
    assert close(client, patience_s=AT_ONCE_S) == [False]
    assert server.recv(1) == b""


def test_a_server_that_lives_on_hears_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    with server:
        assert close(client, patience_s=AT_ONCE_S) == [False]
        assert server.recv(1) == b""
        with pytest.raises(ConnectionError):
            for _ in range(2):
                server.sendall(b"x")


def test_a_driver_that_shuts_reading_down_too():
    """Its stream ends here at once; the kernel knows that the server has not closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]

    def by():
        client.shutdown(socket.SHUT_RDWR)
        client.close()

    with server:
        assert close(client, patience_s=AT_ONCE_S, by=by) == [False]


def test_all_are_waited_for_at_once():
    pairs = [socket.socketpair() for _ in range(3)]
    pairs[1][1].close()
    sessions = [(Wire.of(client.fileno()), client.close) for client, _ in pairs]
    assert close_all(sessions, AT_ONCE_S) == [False, True, False]
    for _, server in pairs:
        server.close()


def test_a_number_that_is_anothers_by_now_is_left_alone():
    client, server = socket.socketpair()
    wire = Wire.of(client.fileno())
    number = client.detach()
    stranger, other = socket.socketpair()
    os.dup2(stranger.fileno(), number)
    with stranger, other, server:
        assert close_all([(wire, lambda: None)], AT_ONCE_S) == [False]
        os.write(number, b"x")
        assert other.recv(1) == b"x"
    os.close(number)


def test_nobody_can_tell_of_a_connection_that_is_closed_already():
    client, server = socket.socketpair()
    wire = Wire.of(client.fileno())
    client.close()
    server.close()
    assert close_all([(wire, client.close), (None, client.close)]) == [False, False]


def test_no_descriptor_stays_open():
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        client, server = socket.socketpair()
        close_all([(Wire.of(client.fileno()), client.close)], AT_ONCE_S)
        server.close()
    assert len(os.listdir("/dev/fd")) == before
