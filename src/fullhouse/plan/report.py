"""The plan as a person reads it, and as a program does."""

from dataclasses import asdict
from typing import Any

from fullhouse.plan.plan import Plan, ServerPlan


def as_text(plan: Plan, title: str, static_files: str) -> str:
    """The plan as aligned lines: name, number, how it came about. static_files: who serves them; empty: none are."""
    rows = [(step.name, _figure(step.value), step.why) for step in plan.steps]
    names = max(len(name) for name, _, _ in rows)
    figures = max(len(figure) for _, figure, _ in rows)
    lines = [f"{title}, sizing {plan.sizing}", ""]
    lines += [f"  {name:<{names}}  {figure:>{figures}}  {why}".rstrip() for name, figure, why in rows]
    lines += ["", f"  = {plan.workers} workers × {plan.threads} threads: {plan.requests} requests at once"]
    lines += [f"  = {server_line(server)}" for server in plan.servers]
    if static_files:
        lines.append(f"  static files: {static_files}")
    lines += [f"  note: {note}" for note in plan.notes]
    return "\n".join(lines)


def server_line(server: ServerPlan) -> str:
    """One database server's part of the plan in one line."""
    limit = server.limit
    held = "" if limit.others is None else f"; held now: {limit.ours} by this user, {limit.others} by others"
    return (
        f"{', '.join(limit.aliases)}: {limit.server}, {server.connections} connections at most, "
        f"of a budget of {server.budget}{_parts(server)}{held}"
    )


def _parts(server: ServerPlan) -> str:
    """How the budget is divided between the web workers and their companions; nothing where there are none."""
    if not server.companions:
        return ""
    parts = ", ".join(f"{name} {sessions}" for name, sessions in (("web", server.for_web), *server.companions))
    whole = server.budget + server.reserve == server.limit.limit  # neither fixed by hand, nor one of several hosts'
    return f" ({parts})" + (f", reserve {server.reserve}" if whole else "")


def as_data(plan: Plan, project: str, static_files: str) -> dict[str, Any]:
    """The same, for programs. Sessions, bytes and seconds are whole numbers."""
    return {
        "project": project,
        "sizing": plan.sizing,
        "workers": plan.workers,
        "threads": plan.threads,
        "pool": plan.pool,
        "requests": plan.requests,
        "transfer_memory": plan.transfer_memory,
        "machine": {
            "cores": plan.machine.cores,
            "memory": plan.machine.memory,
            "open_files": plan.machine.open_files,
        },
        "servers": [
            {
                "server": server.limit.server,
                "aliases": server.limit.aliases,
                "limit": server.limit.limit,
                "parts": [{"name": name, "sessions": number} for name, number in server.limit.parts],
                "held_by_others": server.limit.others,
                "held_by_us": server.limit.ours,
                "wait_timeout_s": server.limit.wait_timeout_s,
                "reserve": server.reserve,
                "budget": server.budget,
                "most_hosts": server.most_hosts,
                "connections": server.connections,
                "slots": server.slots,
                "web": server.for_web,
                "companions": dict(server.companions),
            }
            for server in plan.servers
        ],
        "processes": [asdict(one) for one in plan.companions],
        "steps": [{"name": step.name, "value": step.value, "why": step.why} for step in plan.steps],
        "static_files": static_files or None,
        "notes": plan.notes,
    }


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
