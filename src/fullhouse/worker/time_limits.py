"""How long requests may run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from fullhouse.worker.http.request import Request


@dataclass(frozen=True)
class TimeLimits:
    """Seconds that requests may run: `by_path` for paths that begin so, the longest beginning first."""

    request_timeout_s: float = inf
    by_path: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.request_timeout_s < inf or bool(self.by_path)

    def of(self, request: Request) -> float:
        """The seconds that this one may run; infinity where nothing says."""
        for beginning in sorted(self.by_path, key=len, reverse=True):
            if request.path.startswith(beginning):
                return self.by_path[beginning]
        return self.request_timeout_s
