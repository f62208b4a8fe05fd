"""What the workers of a master publish to each other, in shared memory.

Each writes its own row, without a lock: a number is written at once, and no reader relies on two of them being of the
same moment.
"""

from mmap import mmap

_ROWS = 64
_PAIR = 16  # bytes: of a load and when it was published, or of the requests that came and those that were served
_STALE_S = 2.0  # several times as long as a worker that lives is silent


class Siblings:
    """One worker's row. Times in monotonic seconds, one clock for all processes of a host.

    memory: of `BYTES`, shared by all workers, zeros at first. row: a number that no other worker has. If more than fit
    into the memory live at once, some loads are not seen.
    """

    BYTES = 2 * _ROWS * _PAIR

    def __init__(self, memory: mmap | bytearray, row: int) -> None:
        view = memoryview(memory)
        # Word by word, each written at once: struct.pack_into would write zeros first, which others would read.
        self._loads = view[: _ROWS * _PAIR].cast("d")
        self._flows = view[_ROWS * _PAIR :].cast("Q")
        self._at = 2 * (row % _ROWS)
        self._load = 0.0
        self._flow = (0, 0)

    def publish_load(self, load: float, now: float) -> None:
        """How much this worker has to do."""
        self._load = load
        self._loads[self._at], self._loads[self._at + 1] = load, now

    def is_lighter_elsewhere(self, now: float) -> bool:
        """Whether another worker, of those that published it lately, has less to do."""
        loads = self._loads.tolist()
        return any(load < self._load and now - at < _STALE_S for load, at in zip(loads[::2], loads[1::2], strict=True))

    def publish_flow(self, arrived: int, served: int) -> tuple[int, int]:
        """How many requests came to this worker, and how many it served; how many it were in all of them.

        Added to what is there, so that the sums never fall when a worker has ended and another has its row.
        """
        self._flows[self._at] += arrived - self._flow[0]
        self._flows[self._at + 1] += served - self._flow[1]
        self._flow = arrived, served
        flows = self._flows.tolist()
        return sum(flows[::2]), sum(flows[1::2])
