"""One of the processes that fight for slots: its threads want connections all the time."""

import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from dbsupport import Database, request
from private_servers import PrivateServer

THREADS = 20
HOLD_S = 0.02


def fight(orders: "Connection[Any, Any]", facts: dict[str, Any], slots: int, fair_share: int) -> None:
    """Begin and end on orders, then send how many requests each thread has made, and the errors."""
    server = PrivateServer(admin_user="", admin_password="", socket=None, folder=None, _guard=None, **facts)  # type: ignore[arg-type]
    database = Database(server, "fight", checkout_timeout=60)
    database.plan(slots, fair_share)
    stop = threading.Event()
    counts = [0] * THREADS
    errors: list[str] = []

    def work(number: int) -> None:
        pins = "SET @a = 1" if database.vendor == "mysql" else "SET app.kept = 'x'"
        while not stop.is_set():
            try:
                with request(), database.connection.cursor() as cursor:
                    cursor.execute(pins if number == 0 else "SELECT 1")  # some connections come and go
                    time.sleep(HOLD_S)
                counts[number] += 1
            except Exception as error:
                errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    orders.recv()
    for thread in threads:
        thread.start()
    orders.recv()
    stop.set()
    for thread in threads:
        thread.join()
    orders.send((counts, errors))
