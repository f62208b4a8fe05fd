"""The views: one that waits, with two short queries around it, and one small ORM query."""

import time

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

application = get_wsgi_application()

from django.contrib.contenttypes.models import ContentType  # noqa: E402 - models come after the apps
from django.db import connection  # noqa: E402

SLEEP, LONGER_SLEEP, ENDLESS_SLEEP = (
    f"SELECT {'SLEEP' if connection.vendor == 'mysql' else 'pg_sleep'}({seconds})" for seconds in (0.005, 0.05, 600)
)


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


urlpatterns = [path("page", page), path("row", row), path("query", query), path("stuck", stuck)]
