"""The memory of a worker for what is on its way: requests that come in, bodies, and responses that are not read yet."""

from fullhouse.worker.channel import Channel


class TransferMemory:
    """Counts what each channel keeps in memory, against a budget. For the thread that runs the loop.

    One half of the budget is first come, first served. Beyond it, bodies and responses go to temporary files. Heads
    cannot, and have equal shares of the other half. So all together never exceed the budget, except by the bytes that
    were received last.

    budget_bytes: of the worker. connections: their maximum number.
    """

    def __init__(self, budget_bytes: int, connections: int) -> None:
        self.used_bytes = 0
        self._common_bytes = budget_bytes // 2
        self._share_bytes = budget_bytes // 2 // connections

    def count(self, channel: Channel) -> None:
        """Take note of what the channel keeps now, and move it to files where that is too much. Raises OSError."""
        self._note(channel, channel.kept_bytes)
        if self.used_bytes > self._common_bytes:
            channel.spool()
            self._note(channel, channel.kept_bytes)

    def is_short_for(self, channel: Channel) -> bool:
        """Whether the unparsed bytes of a channel are more than its share, where no more is left."""
        return self.used_bytes > self._common_bytes and channel.http.unparsed_bytes > self._share_bytes

    def forget(self, channel: Channel) -> None:
        """The channel keeps nothing any more."""
        self._note(channel, 0)

    def _note(self, channel: Channel, kept_bytes: int) -> None:
        self.used_bytes += kept_bytes - channel.counted_bytes
        channel.counted_bytes = kept_bytes
