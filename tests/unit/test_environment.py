"""What `make demo` installs is complete, although it installs without resolving anything."""

import re
from importlib import metadata

import pytest
from packaging.requirements import Requirement

import environment

EXTRAS = {"demo-sqlite": "", "demo-mariadb": "mysql", "demo-postgresql": "postgresql"}


def closure(name: str, extras: frozenset[str], seen: set[str]) -> set[str]:
    """The names of `name` and of all that it requires, here and now, with these extras."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = [requirement.marker.evaluate({"extra": extra}) for extra in extras] if requirement.marker else [True]
        required = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if any(wanted) and (required not in seen or requirement.extras):
            seen.add(required)
            closure(required, frozenset(requirement.extras) or frozenset({""}), seen)
    return seen


@pytest.mark.parametrize("use", EXTRAS)
def test_every_requirement_is_installed(use: str) -> None:
    installed = {*environment.RUNTIME, *(environment.LIBRARIES[use] or ())}
    assert closure("fullhouse", frozenset({"", EXTRAS[use]}), set()) <= installed


@pytest.mark.parametrize("use", environment.LIBRARIES)
def test_the_lock_file_has_all_of_it(use: str) -> None:
    locked = environment._locked(environment.LIBRARIES[use])
    names = {line.partition("==")[0] for line in locked.splitlines() if "==" in line}
    assert {*environment.RUNTIME, *(environment.LIBRARIES[use] or ())} <= names
