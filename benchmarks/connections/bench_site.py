"""The views: one that waits, with two short queries around it, and one small ORM query."""

import time

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Engine
from django.urls import path

application = get_wsgi_application()

from django.contrib.contenttypes.models import ContentType  # noqa: E402 - models come after the apps
from django.db import connection  # noqa: E402

SLEEP, LONGER_SLEEP, ENDLESS_SLEEP = (
    f"SELECT {'SLEEP' if connection.vendor == 'mysql' else 'pg_sleep'}({seconds})" for seconds in (0.005, 0.05, 600)
)
TABLE = Engine().from_string("{% for row in rows %}<tr><td>{{ row }}</td><td>{{ row|add:1 }}</td></tr>{% endfor %}")
TABLE_ROWS = 600


def page(request: HttpRequest) -> HttpResponse:
    """Two queries of 5 ms around 100 ms of other work, an HTTP call say: it takes no processor time."""
    _query()
    time.sleep(0.1)
    _query()
    return HttpResponse("page")


def row(request: HttpRequest) -> HttpResponse:
    """One small ORM query."""
    found = ContentType.objects.get(pk=1)
    return JsonResponse({"id": found.pk, "model": found.model})


def rows(request: HttpRequest) -> JsonResponse:
    """Ten small ORM queries."""
    return JsonResponse({"models": [ContentType.objects.get(pk=1).model for _ in range(10)]})


def statement(request: HttpRequest) -> HttpResponse:
    """One statement without the ORM."""
    _query("SELECT 1")
    return HttpResponse("statement")


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello, world!")


def template(request: HttpRequest) -> HttpResponse:
    """A table that takes Django's templates about 5 ms."""
    return HttpResponse(TABLE.render(Context({"rows": range(TABLE_ROWS)})))


def compute(request: HttpRequest) -> HttpResponse:
    """50 ms of one core, whoever else computes."""
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        sum(range(1000))
    return HttpResponse("computed")


def query(request: HttpRequest) -> HttpResponse:
    """One query of 50 ms, and no other work."""
    _query(LONGER_SLEEP)
    return HttpResponse("query")


def stuck(request: HttpRequest) -> HttpResponse:
    """One query that takes ten minutes."""
    _query(ENDLESS_SLEEP)
    return HttpResponse("not stuck")


def _query(sql: str = SLEEP) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        cursor.fetchall()


VIEWS = (page, row, rows, statement, hello, template, compute, query, stuck)
urlpatterns = [path(view.__name__, view) for view in VIEWS]
