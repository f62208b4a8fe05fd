"""Probes of a load balancer or an orchestrator: answered by the loop, with no thread and no database."""

from collections.abc import Callable
from http import HTTPStatus

from fullhouse.worker.http.refusal import server_answer
from fullhouse.worker.http.request import Request


class Probes:
    """live: path of the probe that says that the loop runs. ready: of the one that says whether to send requests.

    is_ready: asked for each. No path, no probe.
    """

    def __init__(self, live: str | None, ready: str | None, is_ready: Callable[[], bool]) -> None:
        self._checks: dict[str, Callable[[], bool]] = {}
        if live:
            self._checks[live] = lambda: True
        if ready:
            self._checks[ready] = is_ready

    def answer(self, request: Request) -> bytes | None:
        """The whole answer, 200 or 503; None where the request is no probe."""
        check = self._checks.get(request.path)
        if check is None:
            return None
        return _answer(request, HTTPStatus.OK if check() else HTTPStatus.SERVICE_UNAVAILABLE)


def _answer(request: Request, status: HTTPStatus) -> bytes:
    return server_answer(
        status,
        f"{status.phrase}\n".encode(),
        "Cache-Control: no-store\r\n",
        must_close=request.must_close,
        is_head=request.method == "HEAD",
    )
