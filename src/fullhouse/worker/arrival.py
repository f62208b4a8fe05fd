"""How long ago the kernel received what is read now: a loop that is held up reads it late."""

import socket
import struct
import sys
from contextlib import suppress
from typing import Any

# linux/tcp.h: tcpi_last_data_recv, in milliseconds, is the twelfth of the numbers that follow eight bytes.
_LAST_DATA_RECEIVED = struct.Struct("=52xI")


def age_s(sock: Any) -> float:
    """Seconds since the last bytes came on a TCP connection; 0 where the system does not tell."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
            return float(_LAST_DATA_RECEIVED.unpack(info)[0]) / 1000
    return 0.0
