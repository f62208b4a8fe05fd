"""Settings under which Django's own tests run, and the test runner that records every outcome.

`django_suite.py` says in DJANGO_SUITE_JOB, a JSON object, which databases to use and which file to write to.
"""

import json
import os
import traceback
from pathlib import Path
from typing import Any, TextIO
from unittest import TestCase, TextTestResult

from django.test.runner import DiscoverRunner

FRAMES = 6  # of a traceback, the innermost
_job = json.loads(os.environ["DJANGO_SUITE_JOB"])

DATABASES = _job["databases"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "django-suite"
TEST_RUNNER = "django_suite_settings.RecordingRunner"
USE_TZ = False


class RecordingResult(TextTestResult):
    """Writes one JSON line for each outcome: [test id, outcome, details]. A test can have several."""

    record: TextIO

    def _write(self, test: TestCase, outcome: str, details: str = "") -> None:
        print(json.dumps([test.id(), outcome, details]), file=self.record, flush=True)

    def startTest(self, test: TestCase) -> None:
        super().startTest(test)
        self._write(test, "started")

    def addSuccess(self, test: TestCase) -> None:
        super().addSuccess(test)
        self._write(test, "passed")

    def addExpectedFailure(self, test: TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._write(test, "passed")

    def addSkip(self, test: TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._write(test, "skipped", reason)

    def addFailure(self, test: TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._write(test, "failed", _text(err))

    def addError(self, test: TestCase, err: Any) -> None:
        super().addError(test, err)
        self._write(test, "failed", _text(err))

    def addSubTest(self, test: TestCase, subtest: TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._write(test, "failed", f"{subtest}\n{_text(err)}")

    def addUnexpectedSuccess(self, test: TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._write(test, "failed", "Passed, but Django expects it to fail on this database.")


class RecordingRunner(DiscoverRunner):
    """Django's runner, with a record."""

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        with Path(_job["record"]).open("w") as RecordingResult.record:
            return super().run_suite(suite, **kwargs)

    def get_resultclass(self) -> type[RecordingResult]:
        return RecordingResult


def _text(err: Any) -> str:
    return "".join(traceback.format_exception(*err, limit=-FRAMES))
