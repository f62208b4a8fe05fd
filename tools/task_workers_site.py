"""A site of one module, for `task_workers.py`: the same tasks for every system that runs them.

    python task_workers_site.py SYSTEM TASK NUMBER     # puts so many of them into its queue

TASK_WORKERS_DATABASE is its entry of DATABASES, as JSON; TASK_WORKERS_REDIS the address of a Redis, which counts.
"""

import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import django
import redis

os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__ if __name__ != "__main__" else "task_workers_site")

REDIS = os.environ["TASK_WORKERS_REDIS"]
SYSTEM = os.environ["TASK_WORKERS_SYSTEM"]
WORKERS = int(os.environ["TASK_WORKERS"])
DATABASES = {"default": json.loads(os.environ["TASK_WORKERS_DATABASE"])}
SECRET_KEY = "task-workers"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = {"tasks": ["django_tasks_db"], "q2": ["django_q"]}.get(SYSTEM, [])
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
Q_CLUSTER = {"workers": WORKERS, "redis": REDIS, "timeout": 60, "retry": 120, "save_limit": -1, "log_level": "CRITICAL"}

SLEEP = {"postgresql": "SELECT pg_sleep(%s)", "mysql": "SELECT SLEEP(%s)"}


def tell(what: str) -> None:
    """One more of these, for the tool."""
    client = redis.Redis.from_url(REDIS)
    client.incr(what)
    client.close()


def hold(seconds: float) -> None:
    """A transaction with one statement that takes the database so long."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(SLEEP[connection.vendor], [seconds])
        cursor.fetchall()


def work() -> None:
    try:
        hold(0.05)
    except Exception as error:
        tell(f"failed: {type(error).__name__}")
        tell("failed")
        raise
    tell("done")


def die() -> None:
    """End the process that runs it, in the middle of a statement."""
    tell("died")
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
    hold(10)


def fail() -> None:
    """Raise in the middle of a transaction, as a time limit does."""
    from django.db import connection, transaction

    tell("died")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(SLEEP[connection.vendor], [0.001])
        raise TimeoutError("the task's time is over")


def enqueue(system: str, task: str, number: int) -> None:
    """Put the task into the queue, so many times."""
    from django.db import transaction

    put = getattr(import_module("task_workers_site"), f"put_{system}")(task)
    with transaction.atomic() if system == "tasks" else nullcontext():  # its queue is the database
        for _ in range(number):
            put()


BODIES = {"work": work, "die": die, "fail": fail}


if SYSTEM == "celery":
    from celery import Celery

    celery = Celery("task_workers_site", broker=REDIS, task_ignore_result=True, worker_hijack_root_logger=False)
    celery.conf.worker_prefetch_multiplier = 1
    celery_tasks = {name: celery.task(body, name=name) for name, body in BODIES.items()}

    def put_celery(task: str) -> Any:
        return celery_tasks[task].delay


if SYSTEM == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    django.setup()
    dramatiq.set_broker(RedisBroker(url=REDIS))
    actors = {name: dramatiq.actor(body, max_retries=0) for name, body in BODIES.items()}

    def put_dramatiq(task: str) -> Any:
        return actors[task].send


if SYSTEM == "huey":
    from huey import RedisHuey

    django.setup()
    huey = RedisHuey("site", url=REDIS, results=False)
    huey_tasks = {name: huey.task()(body) for name, body in BODIES.items()}

    def put_huey(task: str) -> Any:
        return huey_tasks[task]


if SYSTEM == "rq":
    django.setup()

    def put_rq(task: str) -> Any:
        from rq import Queue

        queue = Queue(connection=redis.Redis.from_url(REDIS))
        return lambda: queue.enqueue(f"task_workers_site.{task}", failure_ttl=1, result_ttl=0)


def put_q2(task: str) -> Any:
    django.setup()
    from django_q.tasks import async_task

    return lambda: async_task(f"task_workers_site.{task}")


def put_tasks(task: str) -> Any:
    django.setup()
    return import_module("task_workers_tasks").TASKS[task].enqueue


if __name__ == "__main__":
    enqueue(sys.argv[1], sys.argv[2], int(sys.argv[3]))
