"""The tests of Django that may fail with our engines, each with the reason. Read by `django_suite.py`."""

EXEMPTIONS: dict[str, dict[str, str]] = {}
