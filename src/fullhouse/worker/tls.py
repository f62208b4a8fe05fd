"""TLS on a socket that never blocks, with the few methods that the worker uses of a plain one."""

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gunicorn.sock import ssl_context

_RECORD_BYTES = 16 * 1024  # the most that one TLS record holds (RFC 8446 section 5.1)


class TlsSocket:
    """Looks like a non-blocking socket: BlockingIOError means later, whatever TLS waits for.

    The handshake is part of the first reads. OpenSSL allows one thread at a time, which ownership of the
    channel guarantees.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, ragged_eofs: bool) -> None:
        self.tls = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=ragged_eofs
        )

    def fileno(self) -> int:
        return self.tls.fileno()

    def recv(self, size: int) -> bytes:
        try:
            return self.tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv_into(self, buffer: memoryview) -> int:
        try:
            return self.tls.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: bytes | memoryview) -> int:
        """Like socket.send. One record at a time: OpenSSL wants to be asked again for what it could not send."""
        try:
            return self.tls.send(memoryview(data)[:_RECORD_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def sendmsg(self, pieces: Sequence[memoryview], ancillary: tuple[()], flags: int) -> int:
        """Like socket.sendmsg, of the first piece. The flags are TCP's, and TLS has no use for them."""
        del ancillary, flags
        return self.send(pieces[0])

    def shutdown(self, how: int) -> None:
        """Say goodbye in TLS as well, so that the client knows that nothing was cut off."""
        # Most often the client has not said goodbye yet, and is not waited for; or the application has said it.
        with suppress(OSError, ValueError):
            self.tls.unwrap()
        self.tls.shutdown(how)

    def setblocking(self, flag: bool) -> None:
        self.tls.setblocking(flag)

    def getsockname(self) -> Any:
        return self.tls.getsockname()

    def close(self) -> None:
        self.tls.close()


def server_context(cfg: Any) -> ssl.SSLContext:
    """The context that gunicorn's certfile, keyfile, ca_certs, cert_reqs, ciphers and ssl_context ask for."""
    context: ssl.SSLContext = ssl_context(cfg)
    return context
