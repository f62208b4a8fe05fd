"""What the workers of a master publish to each other, in shared memory.

Each writes its own row, without a lock: a number is written at once, and no reader relies on two of them being of the
same moment.
"""

import struct
from mmap import mmap

_ROWS = 64
_LOADS = struct.Struct(f"{2 * _ROWS}d")
_LOAD = struct.Struct("2d")  # the load, and when it was published
_FLOWS = struct.Struct(f"{2 * _ROWS}Q")
_FLOW = struct.Struct("2Q")  # requests that came, and that were served
_STALE_S = 2.0  # several times as long as a worker that lives is silent


class Siblings:
    """One worker's row. Times in monotonic seconds, one clock for all processes of a host.

    memory: of `BYTES`, shared by all workers, zeros at first. row: a number that no other worker has. If more than fit
    into the memory live at once, some loads are not seen.
    """

    BYTES = _LOADS.size + _FLOWS.size

    def __init__(self, memory: mmap | bytearray, row: int) -> None:
        self._memory = memory
        self._load_at = row % _ROWS * _LOAD.size
        self._flow_at = _LOADS.size + row % _ROWS * _FLOW.size
        self._load = 0.0
        self._flow = (0, 0)

    def publish_load(self, load: float, now: float) -> None:
        """How much this worker has to do."""
        self._load = load
        _LOAD.pack_into(self._memory, self._load_at, load, now)

    def is_lighter_elsewhere(self, now: float) -> bool:
        """Whether another worker, of those that published it lately, has less to do."""
        loads = _LOADS.unpack_from(self._memory)
        return any(load < self._load and now - at < _STALE_S for load, at in zip(loads[::2], loads[1::2], strict=True))

    def publish_flow(self, arrived: int, served: int) -> tuple[int, int]:
        """How many requests came to this worker, and how many it served; how many it were in all of them.

        Added to what is there, so that the sums never fall when a worker has ended and another has its row.
        """
        all_arrived, all_served = _FLOW.unpack_from(self._memory, self._flow_at)
        more_arrived, more_served = arrived - self._flow[0], served - self._flow[1]
        self._flow = arrived, served
        _FLOW.pack_into(self._memory, self._flow_at, all_arrived + more_arrived, all_served + more_served)
        flows = _FLOWS.unpack_from(self._memory, _LOADS.size)
        return sum(flows[::2]), sum(flows[1::2])
