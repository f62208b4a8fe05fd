"""What the project's wsgi.py does before the settings are imported: learned from a process that imports it.

The process that plans imports the settings and no application. Where wsgi.py does more than to name the settings, such
as to load a .env file, its environment is needed for the same settings; whether they are the same is compared.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fullhouse.errors import ApplicationError

IMPORT_TIMEOUT_S = 120
# By these a wsgi.py that `startproject` has made is known: nothing but names, and one variable of the environment.
_PLAIN_MODULES = ("os", "django.core.wsgi")
_PLAIN_CALLS = ("os.environ.setdefault",)
_MAKES_APPLICATION = "get_wsgi_application"
_CHILD = """
import importlib, json, os, sys
from fullhouse.supervisor.processes import die_with_parent
die_with_parent(int(sys.argv[3]))
before, found = dict(os.environ), None
try:
    importlib.import_module(sys.argv[1])
except BaseException:
    pass
else:
    from fullhouse.site.wsgi_module import settings_in_force
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    found = {"environ": changed, "settings": settings_in_force()}
with open(int(sys.argv[2]), "w") as report:
    json.dump(found, report)
"""


@dataclass(frozen=True)
class SetUp:
    """What importing wsgi.py has brought: variables of the environment, and the settings that decide the plan."""

    environ: Mapping[str, str]
    settings: Mapping[str, Any]


def settings_in_force() -> dict[str, Any]:
    """Of Django's settings, those by which a wrong site is known: DEBUG, and where each database is."""
    from django.conf import settings

    facts = ("ENGINE", "NAME", "USER", "HOST", "PORT")
    return {
        "DEBUG": bool(settings.DEBUG),
        **{
            f"DATABASES[{alias!r}]": {fact: str(entry.get(fact, "")) for fact in facts}
            for alias, entry in settings.DATABASES.items()
        },
    }


def learn(project: str, python_path: Sequence[str]) -> SetUp | None:
    """What the project's wsgi.py sets up, from a process of its own.

    None where it only names the settings, or raises: then no worker can import it either, and the first reports why.
    Raises ApplicationError where it does not come to an end.
    """
    module = f"{project}.wsgi"
    path = _path_of(module)
    if path is None or _is_plain(path):
        return None
    read, write = os.pipe()
    with open(read) as report:
        try:
            child = subprocess.run(
                [sys.executable, "-c", _CHILD, module, str(write), str(os.getpid())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([*python_path, os.getcwd(), *sys.path])},
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=IMPORT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ApplicationError(f"{path} has not been imported within {IMPORT_TIMEOUT_S} s.") from None
        finally:
            os.close(write)
        found = report.read()
    if not found:
        raise ApplicationError(f"{path} ends the process that imports it, with exit code {child.returncode}.")
    return SetUp(**json.loads(found)) if json.loads(found) is not None else None


def _path_of(module: str) -> Path | None:
    try:
        found = find_spec(module)
    except Exception:  # importing the package runs code of others, whose error comes up again with the settings
        return None
    return Path(found.origin) if found and found.origin else None


def _is_plain(path: Path) -> bool:
    """Whether the module does nothing before it makes the application but what `startproject` writes."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True  # the worker that imports it says what is wrong
    before: list[ast.AST] = []
    for statement in tree.body:
        nodes = list(ast.walk(statement))
        if _MAKES_APPLICATION in _calls(nodes):
            return set(_calls(before)) <= set(_PLAIN_CALLS) and set(_imports(before)) <= set(_PLAIN_MODULES)
        before += nodes
    return True


def _calls(nodes: Iterable[ast.AST]) -> list[str]:
    return [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]


def _imports(nodes: Iterable[ast.AST]) -> list[str]:
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(str(node.module))
    return found
