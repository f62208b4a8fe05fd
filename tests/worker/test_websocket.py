"""WebSocket by the socket in the environ, as the package simple-websocket uses gunicorn's."""

import ssl

import pytest
import simple_websocket
from serving import gunicorn, read_response
from test_serving import certificate  # noqa: F401 (a fixture)

PATIENCE_S = 20
GET = b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("ends", ["returns", "raises"])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_an_application_speaks_websocket(tmp_path, certificate, scheme, ends):  # noqa: F811
    """More often than a thread could without ever waiting for the client, on the only thread."""
    tls = certificate if scheme == "wss" else {}
    context = ssl.create_default_context(cafile=certificate["certfile"]) if tls else None
    with gunicorn(tmp_path, "apps:websocket", threads=1, accesslog="-", **tls) as server:
        for _ in range(2):
            client = simple_websocket.Client(
                f"{scheme}://localhost:{server.address[1]}/echo?{ends}", ssl_context=context
            )
            with client.sock:
                for number in range(3):
                    assert client.receive(timeout=0.1) is None
                    client.send(f"message {number}")
                    assert client.receive(timeout=PATIENCE_S) == f"message {number}"
                client.close()
                client.thread.join(PATIENCE_S)
    assert "Error" not in server.logged()


def test_an_application_that_only_looks_keeps_its_connection(tmp_path):
    with gunicorn(tmp_path, "apps:websocket", threads=1) as server, server.connect() as client:
        for _ in range(2):
            client.sendall(GET)
            head, body = read_response(client)
            assert b"Connection: keep-alive" in head
            assert body == b"127.0.0.1"


def test_a_fault_before_the_socket_is_used_is_answered(tmp_path):
    with gunicorn(tmp_path, "apps:websocket", threads=1) as server:
        assert server.exchange(b"GET /echo HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 500 ")
