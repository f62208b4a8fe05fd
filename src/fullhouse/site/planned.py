"""From a project's name to its settings and its plan: the one way, for every command and for fullhouse.conf."""

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir

from fullhouse.plan import machine, planner
from fullhouse.plan.plan import Plan
from fullhouse.settings.arguments import from_arguments
from fullhouse.settings.layers import from_environment, layered
from fullhouse.settings.table import Settings
from fullhouse.site import project
from fullhouse.site.companions import migration_check, programs
from fullhouse.site.databases import ask_limits, has_database
from fullhouse.site.forking import threads_and_sockets
from fullhouse.site.project import Project
from fullhouse.site.static_files import StaticFiles, static_files
from fullhouse.supervisor.companions import Program
from fullhouse.supervisor.gunicorn_args import from_gunicorn_cmd_args, from_gunicorn_file


@dataclass(frozen=True)
class Planned:
    """A project with the settings in force and the plan that follows from them.

    static: who serves its static files. programs: those that run beside the web workers, once migration_check has ended
    with 0; None: there is nothing to check.
    """

    project: Project
    settings: Settings
    plan: Plan
    static: StaticFiles
    programs: Sequence[Program]
    migration_check: Program | None


def plan_for(name: str | None, arguments: Namespace, worker_memory: int | None = None) -> Planned:
    """Find the project, lay its options over one another, ask its databases, and make the plan.

    worker_memory: bytes that a worker of it takes, where one runs.

    Raises ConfigurationError, DatabaseError, PlanError.
    """
    # Folders and variables are needed to import the settings, which may name further ones for the workers.
    early = from_arguments(from_environment(Settings(), os.environ), arguments)
    before = threads_and_sockets()
    found = project.find(name, early.python_path, early.env)
    left = threads_and_sockets() - before
    settings = from_gunicorn_file(Settings(), Path.cwd())
    settings = layered(settings, found.options, f"FULLHOUSE in {found.settings_module}")
    settings = from_gunicorn_cmd_args(settings, os.environ)
    settings = from_arguments(from_environment(settings, os.environ), arguments)
    asked = ask_limits(settings)
    plan = planner.make_plan(settings, replace(machine.look(), worker_memory=worker_memory), asked.limits)
    notes = [f"{error} It is not required, so the site starts without it." for error in asked.unknown.values()]
    if left:
        notes.append(
            f"Importing {found.settings_module} started {', '.join(sorted(left))}. Workers are forked from this "
            "process: they lose its threads and share its sockets. Start such clients in post_worker_init, or on first "
            "use."
        )
    if machine.is_in_memory(Path(gettempdir())):
        notes.append(
            f"Bodies and responses too large for memory go to files in {gettempdir()}, which is itself in memory "
            "(tmpfs). Set TMPDIR to a folder on disk."
        )
    static = static_files(settings, found.django)
    beside = programs(plan.companions, settings, found.settings_module)
    check = migration_check(settings, found.settings_module) if beside and has_database() else None
    return Planned(found, settings, replace(plan, notes=(*plan.notes, *notes)), static, beside, check)
