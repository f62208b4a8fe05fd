"""What the servers run: bare WSGI callables, and a Django project in one file."""

import itertools
import time

MEGABYTE = b"x" * (1 << 20)
PLAIN = ("Content-Type", "text/plain")


def _answer(start_response, body):
    start_response("200 OK", [PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def bare(environ, start_response):
    return _answer(start_response, b"Hello, world!")


def large(environ, start_response):
    return _answer(start_response, MEGABYTE)


def compute(environ, start_response):
    """A page that takes 50 ms of one core, whoever else computes."""
    _use_core(0.05)
    return _answer(start_response, b"computed")


def _use_core(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


_COLD_S, _COLD_REQUESTS = 0.6, 4
_begun = itertools.count()


def page(environ, start_response):
    """As many milliseconds of one core as its path says, but the first requests of a process take longer."""
    seconds = int(environ["PATH_INFO"].lstrip("/") or 0) / 1000
    if next(_begun) < _COLD_REQUESTS:
        seconds = max(seconds, _COLD_S)
    _use_core(seconds)
    return _answer(start_response, b"page")


def upload(environ, start_response):
    length, stream = int(environ.get("CONTENT_LENGTH") or 0), environ["wsgi.input"]
    while length > 0 and (piece := stream.read(min(length, 65536))):
        length -= len(piece)
    return _answer(start_response, b"taken")


def _django():
    from django.conf import settings

    settings.configure(
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        LOGGING_CONFIG=None,
    )
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def _hello(request):
    from django.http import HttpResponse

    return HttpResponse("Hello, world!")


def _urls():
    from django.urls import path

    return [path("", _hello)]


class _Lazy:
    """The Django application, made when it is first asked for, so that bare servers never import Django."""

    application = None

    def __call__(self, environ, start_response):
        if self.application is None:
            _Lazy.application = _django()
            globals()["urlpatterns"] = _urls()
        return self.application(environ, start_response)


hello = _Lazy()


def query(environ, start_response):
    """A page that waits for the database: one query of 50 ms, or what its path says."""
    from bench_site import application

    path = environ["PATH_INFO"]
    return application(environ | {"PATH_INFO": "/query" if path == "/" else path}, start_response)


def orm(environ, start_response):
    """One small ORM query: a view of the site that compares connection handling."""
    from bench_site import application

    return application(environ | {"PATH_INFO": "/row"}, start_response)
