"""What the doctor finds, and how it is told."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PAGE = "docs/reference/checks.md"
# The exit code is that of the worst: warnings are for people, an error stops a script.
EXIT_CODES = {"error": 1, "warning": 0, "note": 0}


@dataclass(frozen=True)
class Finding:
    """id: a letter for the severity and a number, as in Django's checks. fact: with its numbers. remedy: what to do."""

    id: str
    fact: str
    remedy: str

    @property
    def severity(self) -> str:
        return {"E": "error", "W": "warning", "I": "note"}[self.id[0]]


def as_text(findings: Sequence[Finding], looked_at: Sequence[str]) -> str:
    """For people: the worst first. looked_at: what was examined."""
    ordered = sorted(findings, key=lambda one: list(EXIT_CODES).index(one.severity))
    lines = [f"{one.severity:7}  fullhouse.{one.id}  {one.fact}\n{'':22}{one.remedy}" for one in ordered]
    counts = {name: sum(one.severity == name for one in findings) for name in EXIT_CODES}
    numbers = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items()]
    closing = f"Looked at {', '.join(looked_at)}: {', '.join(numbers)}."
    return "\n".join([*lines, closing, *([f"What each one means: {PAGE}"] if findings else [])])


def as_json(findings: Sequence[Finding], looked_at: Sequence[str]) -> str:
    """For programs."""
    found = [{**asdict(one), "id": f"fullhouse.{one.id}", "severity": one.severity} for one in findings]
    return json.dumps({"findings": found, "looked_at": list(looked_at)}, indent=2)


def exit_code(findings: Sequence[Finding]) -> int:
    return max((EXIT_CODES[one.severity] for one in findings), default=0)
