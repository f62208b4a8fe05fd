"""The tasks of `task_workers_site.py` as Django's own."""

import task_workers_site as site

try:
    from django.tasks import task
except ImportError:  # Django 5.2, for which the package django-tasks has them
    from django_tasks import task


@task()
def work() -> None:
    site.work()


@task()
def die() -> None:
    site.die()


@task()
def fail() -> None:
    site.fail()


TASKS = {"work": work, "die": die, "fail": fail}
