"""A middleware that has each answer of the database come later, as a network between them would.

The delay in seconds is in the file that BENCH_DELAY names. What waits is the thread that runs the statement, without
the interpreter, as it would wait for a socket. A proxy that delays would take the processor from the servers.
"""

import os
import struct
import time
from collections.abc import Callable
from mmap import ACCESS_READ, mmap

from django.db import connection
from django.http import HttpRequest, HttpResponse


def late(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    with open(os.environ["BENCH_DELAY"], "rb") as file:
        delay = mmap(file.fileno(), 8, access=ACCESS_READ)

    def execute_late(execute: Callable[..., object], *arguments: object) -> object:
        try:
            return execute(*arguments)
        finally:
            (delay_s,) = struct.unpack("d", delay)
            if delay_s:
                time.sleep(delay_s)

    def respond(request: HttpRequest) -> HttpResponse:
        with connection.execute_wrapper(execute_late):
            return get_response(request)

    return respond
