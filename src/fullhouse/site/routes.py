"""Which of Django's URL templates a request matched, told to the server: a path is one of endlessly many.

The only module that relies on `WSGIHandler.request_class`, and on Django setting `resolver_match` on its requests
(tests/integration/test_django_internals.py).
"""

from typing import Any

from fullhouse.telemetry.times import ROUTE


def remember_routes() -> None:
    """Have every WSGI handler of Django's in this process leave the route in the request's environ."""
    from django.core.handlers.wsgi import WSGIHandler

    found: Any = WSGIHandler.request_class
    if not hasattr(found, "remembers_route"):
        WSGIHandler.request_class = _remembering(found)


def _remembering(request_class: Any) -> Any:
    class WSGIRequest(request_class):  # type: ignore[misc]  # the name that Django shows
        remembers_route = True

        @property
        def resolver_match(self) -> Any:
            return self.__dict__["resolver_match"]

        @resolver_match.setter
        def resolver_match(self, match: Any) -> None:
            self.__dict__["resolver_match"] = match
            if match is not None:
                self.environ[ROUTE] = f"/{match.route}"

    WSGIRequest.__module__, WSGIRequest.__qualname__ = request_class.__module__, request_class.__qualname__
    return WSGIRequest
