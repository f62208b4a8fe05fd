"""What a generation reports to the supervisor over its pipe: one JSON object a line, one write each.

The write end is held by the master and its workers alone, so the pipe's end means that none of them is left.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# A write of up to 4,096 bytes to a pipe is never mixed with others (PIPE_BUF on Linux; POSIX promises 512).
LONGEST = 4096


def send(pipe: int, event: str, **details: Any) -> None:
    """Report to the supervisor, if it is there. Long texts keep their end, where the error is."""
    clip = LONGEST
    while len(line := _line(event, details, clip)) > LONGEST and clip > 1:
        clip //= 2
    with suppress(BrokenPipeError):
        os.write(pipe, line)


def _line(event: str, details: Mapping[str, Any], clip: int) -> bytes:
    clipped = {name: value[-clip:] if isinstance(value, str) else value for name, value in details.items()}
    return json.dumps({"event": event, **clipped}).encode() + b"\n"


class Reports:
    """The supervisor's end of one generation's pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self._rest = b""
        os.set_blocking(pipe, False)

    def read(self) -> list[dict[str, Any]] | None:
        """What has come since; None once no process of the generation is left."""
        try:
            data = os.read(self.pipe, 65536)
        except BlockingIOError:
            return []
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        os.close(self.pipe)
