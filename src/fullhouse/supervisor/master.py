"""One gunicorn master under the plan, in this process."""

import gc
import logging
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from fullhouse.errors import ApplicationError

# The exit codes with which gunicorn's arbiter ends when no worker can load the application.
BOOT_FAILURES = (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)


class Loads(Protocol):
    """A project whose WSGI application can be loaded. Raises ApplicationError."""

    def load_application(self) -> Callable[..., Any]: ...
    def load_what_requests_need(self) -> None: ...


class ToldOnce:
    """Has the first worker whose application does not load report why, and keeps the rest from repeating it.

    The flag is a byte of memory shared by the master and its forks: set by a worker, read by all.
    """

    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)

    def report(self, text: str) -> None:
        if not self._flag[0]:
            self._flag[0] = 1
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - the worker's one word to the person

    def filter(self, record: logging.LogRecord) -> bool:
        """A logging filter: drops gunicorn's account of a failure that was reported."""
        return not self._flag[0]


class PatientArbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter, stopping to the end though several workers fail to boot: each raises HaltServer anew."""

    def stop(self, graceful: bool = True) -> None:
        while True:
            try:
                super().stop(graceful)
            except HaltServer:
                continue
            return


class Master(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's application object: settings are given, the WSGI application is loaded in each worker."""

    def __init__(self, project: Loads, values: Mapping[str, Any], *, with_traceback: bool = False) -> None:
        self._project = project
        self._values = values
        self._with_traceback = with_traceback
        self._failure = ToldOnce()
        super().__init__()
        logging.getLogger("gunicorn.error").addFilter(self._failure)

    def preload(self) -> None:
        """Load the application here, for all workers. Raises SystemExit where it does not load."""
        self.wsgi()
        self._project.load_what_requests_need()

    def run(self) -> None:
        PatientArbiter(self).run()

    def load_config(self) -> None:
        for name, value in self._values.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        try:
            return self._project.load_application()
        except ApplicationError as error:
            if self.cfg.reload and isinstance(error.__cause__, SyntaxError):
                raise error.__cause__ from None  # gunicorn shows it in the browser, and waits for the correction
            if self._with_traceback and error.__cause__ is not None:
                self._failure.report("".join(traceback.format_exception(error.__cause__)).rstrip())
            else:
                self._failure.report(f"fullhouse: {error}")
            sys.exit(Arbiter.APP_LOAD_ERROR)


def serve(
    project: Loads,
    values: Mapping[str, Any],
    *,
    with_traceback: bool,
    freeze_gc: bool,
    may_fork: Callable[[], object],
) -> int:
    """Serve until a signal ends it. Returns the exit code: ApplicationError's where the application did not load.

    Where this process loads the application for the workers, `may_fork` is called after that, and `freeze_gc` keeps the
    garbage collector from touching its memory. A worker is a fork that leaves by SystemExit, with a code that the
    master reads: that one passes through.
    """
    master = os.getpid()
    try:
        application = Master(project, values, with_traceback=with_traceback)
        if values["preload_app"]:
            application.preload()
            may_fork()
            if freeze_gc:
                gc.collect()
                gc.freeze()
        application.run()
    except SystemExit as end:
        if os.getpid() != master:
            raise
        if end.code in BOOT_FAILURES:
            return ApplicationError.exit_code
        return end.code if isinstance(end.code, int) else 0
    return 0
