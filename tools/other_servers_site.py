"""A site of one module, for `other_servers.py`: settings, views, and both kinds of application.

OTHER_SERVERS_DATABASE is its entry of DATABASES, as JSON.
"""

import asyncio
import json
import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)

ALLOWED_HOSTS = ["*"]
DATABASES = {"default": json.loads(os.environ["OTHER_SERVERS_DATABASE"])}
DEBUG = True  # else runserver asks for more settings; its pages are never shown
INSTALLED_APPS: list[str] = []
MIDDLEWARE: list[str] = []
ROOT_URLCONF = __name__
SECRET_KEY = "other-servers"
WSGI_APPLICATION = f"{__name__}.application"

SLEEP = {"postgresql": "SELECT pg_sleep(0.05)", "mysql": "SELECT SLEEP(0.05)"}


def ask() -> None:
    """50 ms of the database."""
    with connection.cursor() as cursor:
        cursor.execute(SLEEP[connection.vendor])
        cursor.fetchall()


def view(request: HttpRequest) -> HttpResponse:
    ask()
    return _done()


async def async_view(request: HttpRequest) -> HttpResponse:
    await asyncio.to_thread(_ask_in_a_thread)
    return _done()


def _done() -> HttpResponse:
    return HttpResponse("done", headers={"Content-Length": "4"})  # else runserver ends the connection


def _ask_in_a_thread() -> None:
    try:
        ask()
    finally:
        connection.close()  # such a thread is nobody's request


urlpatterns = [path("", view), path("async", async_view)]
application = get_wsgi_application()
asgi_application = get_asgi_application()
