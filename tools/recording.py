"""Every outcome of a test run, as one JSON line each: [test, outcome, details]. A test can have several.

outcome: started, passed, skipped or failed. Recorded from unittest, as Django's runner uses it, and from pytest.
"""

import json
import traceback
from pathlib import Path
from typing import Any, TextIO
from unittest import TestCase, TextTestResult

FRAMES = 6  # of a traceback, the innermost
DETAILS = 3000  # characters of what pytest says


class Record:
    """A file that is written to until the process ends."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = Path(path).open("w")  # noqa: SIM115

    def write(self, test: str, outcome: str, details: str = "") -> None:
        print(json.dumps([test, outcome, details]), file=self._file, flush=True)


class RecordingResult(TextTestResult):
    """For unittest's runners."""

    record: Record

    def _write(self, test: TestCase, outcome: str, details: str = "") -> None:
        self.record.write(test.id(), outcome, details)

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
        self._write(test, "failed", "Passed, but was expected to fail on this database.")


class RecordingPlugin:
    """For pytest: of each test what went worst of its set-up, itself and its clean-up."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._record.write(nodeid, "started")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._record.write(report.nodeid, report.outcome, str(report.longrepr or "")[-DETAILS:])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._record.write(report.nodeid, "failed", str(report.longrepr)[-DETAILS:])


def _text(err: Any) -> str:
    return "".join(traceback.format_exception(*err, limit=-FRAMES))
