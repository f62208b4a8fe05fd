"""What was, for the live page: a point a second of the last ten minutes, a point for each ten seconds of eight hours.

Pure: the caller brings the figures. Also marks what people look for in a curve: reloads and the ends of workers.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

FINE_POINTS = 600
COARSE_S = 10.0
COARSE_POINTS = 8 * 360
MOST_MARKS = 200
COLUMNS = ("at", "requests_per_s", "errors_per_s", "shed_per_s", "p50_s", "p95_s", "busy", "queued")
# Columns whose highest value of the ten seconds is kept, not their mean.
_PEAKS = frozenset(("p95_s", "busy", "queued"))
# Ends of workers that are part of the plan.
_USUAL_ENDS = frozenset(("stopped", "max_requests"))

Point = tuple[float, ...]


class History:
    """fine, coarse: points as COLUMNS says. marks: at, kind (reload, end, failure) and text."""

    def __init__(self) -> None:
        self.fine: deque[Point] = deque(maxlen=FINE_POINTS)
        self.coarse: deque[Point] = deque(maxlen=COARSE_POINTS)
        self.marks: deque[tuple[float, str, str]] = deque(maxlen=MOST_MARKS)
        self._gathered: list[Point] = []
        self._serving = 0
        self._ends: Mapping[str, int] = {}
        self._failure: str | None = None

    def add(self, figures: Mapping[str, Any], ends: Mapping[str, int]) -> None:
        """ends: workers that have ended since the site's start, by reason."""
        durations = figures["durations_s"]
        point = (
            figures["at"],
            figures["requests_per_s"],
            figures["errors_per_s"],
            sum(figures["shed_per_s"].values()),
            durations["p50"] or 0.0,
            durations["p95"] or 0.0,
            figures["busy"],
            figures["queued"],
        )
        self.fine.append(point)
        self._gathered.append(point)
        if point[0] - self._gathered[0][0] >= COARSE_S:
            self.coarse.append(_together(self._gathered))
            self._gathered = []
        self._mark(figures, ends)

    def _mark(self, figures: Mapping[str, Any], ends: Mapping[str, int]) -> None:
        at = figures["at"]
        serving = max(
            (one["number"] for one in figures["generations"] if one["state"] == "ready"), default=self._serving
        )
        if serving > max(self._serving, 1) and len(self.fine) > 1:
            self.marks.append((at, "reload", f"generation {serving} serves"))
        self._serving = serving
        for reason, count in ends.items():
            more = count - self._ends.get(reason, 0)
            if self._ends and more > 0 and reason not in _USUAL_ENDS:
                self.marks.append((at, "end", f"{more} × a worker ended: {reason}"))
        self._ends = dict(ends)
        failure = figures["last_failure"]
        if failure and failure != self._failure:
            self.marks.append((at, "failure", failure.partition("\n")[0]))
        self._failure = failure

    def as_dict(self, *, coarse: bool) -> dict[str, Any]:
        """Eight hours of it, or ten minutes."""
        points = self.coarse if coarse else self.fine
        return {"columns": COLUMNS, "points": list(points), "marks": list(self.marks)}


def _together(points: list[Point]) -> Point:
    """One of several: the last one's time, the means, the peaks."""
    columns = list(zip(*points, strict=True))
    found = [
        max(values) if name in _PEAKS else round(sum(values) / len(values), 3)
        for name, values in zip(COLUMNS, columns, strict=True)
    ]
    return points[-1][0], *found[1:]
