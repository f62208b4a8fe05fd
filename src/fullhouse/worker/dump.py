"""What every thread of a worker is at: its request, statement and stack. Taken from inside, so without ptrace."""

import sys
import threading
import traceback
from collections.abc import Iterable

from fullhouse.worker.stuck import Queries, describe
from fullhouse.worker.threads import ThreadState


def dump(states: Iterable[ThreadState], queries: Queries, now: float) -> str:
    """A paragraph for each thread that runs a request, and one for each stack that others share; but the caller's.

    states: of the threads that run requests. now: in monotonic seconds.
    """
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    busy = {state.ident: state for state in list(states) if state.request is not None}
    paragraphs = [f"{names.get(ident, ident)}: {describe(state, now, queries)}" for ident, state in busy.items()]
    others: dict[str, list[str]] = {}
    for ident, frame in frames.items():
        if ident not in busy and ident != threading.get_ident():
            stack = "".join(traceback.format_stack(frame)).rstrip()
            others.setdefault(stack, []).append(str(names.get(ident, ident)))
    paragraphs += [f"{', '.join(sorted(alike))}:\n{stack}" for stack, alike in others.items()]
    return "\n\n".join(paragraphs)
