"""The observer, in a process of its own: `python -m fullhouse.observation ORDER`, run by the supervisor alone.

It only reads. Whatever becomes of it, no request notices: it has the lowest priority, and the supervisor, which answers
it once a second, starts it again when it has ended.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from fullhouse.observer.look import Looker
from fullhouse.observer.server import Server
from fullhouse.observer.watch import Exposition, Watch, site_name
from fullhouse.supervisor.instances import Instance

_NICENESS = 10


@dataclass(frozen=True)
class Order:
    """listener: a descriptor. lock_path, facts: of the instance that is looked at."""

    listener: int
    lock_path: str
    facts: Mapping[str, Any]


def main(order: Order) -> None:
    """Serve until this process is ended."""
    os.set_inheritable(order.listener, False)
    os.nice(_NICENESS)
    setproctitle(f"fullhouse: observer [{order.facts['project']}]")
    looker = Looker(Instance(Path(order.lock_path), order.facts))
    watch = Watch(looker, site_name(order.facts), _exposition())
    watch.start()
    with Server(socket.socket(fileno=order.listener), watch) as server:
        server.serve_forever()


def _exposition() -> Exposition | None:
    if not find_spec("prometheus_client"):
        return None
    from fullhouse.observer.prometheus import exposition

    return exposition


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
