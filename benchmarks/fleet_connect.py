"""What a new session costs in a fleet, with the database 1 ms away: with its fence, and without.

Run: PYTHONPATH=tools:src python -m benchmarks.fleet_connect
Goal: at most 1.15 × without. Both in turns, in one process, through one proxy that delays each way by half.
"""

import socket
import statistics
import threading
import time
from contextlib import suppress
from typing import Any

import django
from django.conf import settings

from private_servers import PrivateServer, mysql_family, postgresql

ROUNDS = 200
DELAY_S = 0.001


class Slots:
    """Of a host that has all it wants."""

    unplanned = False

    def __init__(self, *, is_fleet: bool) -> None:
        self.is_fleet = is_fleet

    def revoke(self, slot: int) -> None:
        raise AssertionError(f"slot {slot} was another's")


def distant(port: int) -> int:
    """A port at which what listens on `port` is so far away."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    return int(listener.getsockname()[1])


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        client, _ = listener.accept()
        there = socket.create_connection(("127.0.0.1", port))
        for one, other in ((client, there), (there, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_carry, args=(one, other), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):  # a host that ends resets what it has
        while data := one.recv(65536):
            time.sleep(DELAY_S / 2)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


def measure(server: PrivateServer) -> None:
    from django.db import connections

    from fullhouse.db.driver import DjangoDriver

    alias = server.vendor
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: entry(server)})[alias]
    wrapper: Any = connections[alias]
    kinds = {"without a fence": Slots(is_fleet=False), "with one": Slots(is_fleet=True)}
    drivers = {name: DjangoDriver(wrapper, slots) for name, slots in kinds.items()}  # type: ignore[arg-type]
    found: dict[str, list[float]] = {name: [] for name in drivers}
    for number in range(ROUNDS):
        for name, driver in drivers.items():
            began = time.perf_counter()
            connection = driver.connect(number)
            driver.lifetime_limit_s(connection)
            found[name].append(1000 * (time.perf_counter() - began))
            driver.close([connection])
    medians = {name: statistics.median(times) for name, times in found.items()}
    told = ", ".join(f"{name} {median:.2f} ms" for name, median in medians.items())
    ratio = medians["with one"] / medians["without a fence"]
    print(f"{server.engine}: connect {told}; {ratio:.3f} × (medians of {ROUNDS})", flush=True)


def entry(server: PrivateServer) -> dict[str, Any]:
    facts = {"HOST": "127.0.0.1", "PORT": distant(server.port), "NAME": server.database}
    return {"ENGINE": f"fullhouse.db.{server.vendor}", "USER": server.user, "PASSWORD": server.password, **facts}


def main() -> None:
    settings.configure(DATABASES={}, USE_TZ=True)
    django.setup()
    for make in (postgresql, mysql_family):
        with make() as server:
            measure(server)


if __name__ == "__main__":
    main()
