"""The verdict on two runs of a suite of tests."""

import json
from pathlib import Path

import pytest

import comparison
import django_suite
from django_suite_exemptions import EXEMPTIONS

PASSED, SKIPPED, FAILED, STARTED = (("passed", ""), ("skipped", "why"), ("failed", "trace"), ("started", ""))


@pytest.mark.parametrize(
    ("stock", "ours", "worse"),
    [
        (PASSED, PASSED, False),
        (PASSED, FAILED, True),
        (PASSED, STARTED, True),
        (PASSED, SKIPPED, True),
        (PASSED, None, True),
        (FAILED, FAILED, False),
        (FAILED, PASSED, False),
        (FAILED, None, False),
        (SKIPPED, SKIPPED, False),
        (SKIPPED, PASSED, False),
        (SKIPPED, FAILED, True),
        (None, FAILED, True),  # the set-up of a class, say
        (None, PASSED, False),
    ],
)
def test_what_counts_as_worse(stock: comparison.Outcome, ours: comparison.Outcome, worse: bool) -> None:
    stock_run, our_run = ({"a.test": outcome} if outcome else {} for outcome in (stock, ours))
    assert comparison.judge(stock_run, our_run, {}).good is not worse


def test_an_exemption_explains_a_difference_and_must_be_needed() -> None:
    exemptions = {"a.test": "by design"}
    assert comparison.judge({"a.test": PASSED}, {"a.test": FAILED}, exemptions).explained == ["a.test"]
    assert comparison.judge({}, {}, exemptions).good, "it was not run"
    assert not comparison.judge({"a.test": PASSED}, {"a.test": PASSED}, exemptions).good


def test_the_worst_outcome_of_a_test_counts(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    lines = [["a", *STARTED], ["a", *FAILED], ["a", *PASSED], ["b", *STARTED], ["b", *PASSED], ["c", *STARTED]]
    record.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert comparison.outcomes(record) == {"a": FAILED, "b": PASSED, "c": STARTED}


def test_every_engine_has_its_exemptions() -> None:
    assert EXEMPTIONS.keys() == django_suite.ENGINES.keys() | django_suite.GIS_ENGINES.keys()
