"""Django's errors that would not be seen: with DEBUG off, its default logging mails them and writes nothing."""

import logging
from typing import Any

from django.utils.log import AdminEmailHandler

_LOGGER = "django.request"  # of every response of 500 and above, with the exception that it is made of
_UNSEEN = (AdminEmailHandler, logging.NullHandler)


def show_unseen_errors(log: Any) -> None:
    """Have Django's errors written into the server's log, unless the site's own logging writes them somewhere."""
    logger = logging.getLogger(_LOGGER)
    if not _is_seen(logger):
        logger.addHandler(_ToServerLog(log))


class _ToServerLog(logging.Handler):
    def __init__(self, log: Any) -> None:
        super().__init__(logging.ERROR)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.error("%s", record.getMessage(), exc_info=record.exc_info)


def _is_seen(logger: logging.Logger) -> bool:
    """Whether a handler shows the logger's errors; where there is none at all, Python itself does."""
    handlers: list[logging.Handler] = []
    above: logging.Logger | None = logger
    while above is not None:
        handlers += above.handlers
        above = above.parent if above.propagate else None
    error = logger.makeRecord(logger.name, logging.ERROR, "", 0, "", (), None)
    return not handlers or any(_shows(handler, error) for handler in handlers)


def _shows(handler: logging.Handler, error: logging.LogRecord) -> bool:
    if isinstance(handler, _UNSEEN) or handler.level > error.levelno:
        return False
    try:
        return bool(handler.filter(error))
    except Exception:  # a filter that wants to see a request: it lets some pass
        return True
