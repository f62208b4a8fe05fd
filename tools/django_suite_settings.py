"""Settings under which Django's own tests run, and the test runner that records every outcome.

`django_suite.py` says in DJANGO_SUITE_JOB, a JSON object, which databases to use and which file to write to.
"""

import json
import os
from typing import Any

from django.test.runner import DiscoverRunner

from recording import Record, RecordingResult

_job = json.loads(os.environ["DJANGO_SUITE_JOB"])

DATABASES = _job["databases"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SECRET_KEY = "django-suite"
TEST_RUNNER = "django_suite_settings.RecordingRunner"
USE_TZ = False


class RecordingRunner(DiscoverRunner):
    """Django's runner, with a record."""

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        RecordingResult.record = Record(_job["record"])
        return super().run_suite(suite, **kwargs)

    def get_resultclass(self) -> type[RecordingResult]:
        return RecordingResult
