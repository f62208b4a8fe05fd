"""The arithmetic: limits in, a plan out. Pure; every number leaves a step that says how it came about."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NoReturn

from fullhouse.errors import PlanError
from fullhouse.plan import sizing
from fullhouse.plan.limits import Limit
from fullhouse.plan.machine import Machine
from fullhouse.plan.plan import GENERATIONS, Plan, ServerPlan, Step
from fullhouse.settings.companions import Companion, companions
from fullhouse.settings.table import Settings

# A tenth of the limit is left to others, and 40 at the most: the figure of the classic recipe for a limit of 1000.
RESERVE_SHARE = 10
RECIPE_RESERVE = 40
# Of one fleet. Each look at the ledger of MySQL asks for four locks of each.
MOST_HOSTS = 200


def make_plan(settings: Settings, machine: Machine, limits: Sequence[Limit]) -> Plan:
    """The plan for this machine and these database servers (none: SQLite only).

    Raises PlanError where the worst case would not fit a server's budget.
    """
    machine, steps = _given_machine(settings, machine)
    beside = companions(settings)
    servers = [_with_companions(settings, _budgeted(settings, limit, steps), beside, steps) for limit in limits]
    size = sizing.by_recipe if settings.sizing == "recipe" else sizing.to_fit
    (workers, why_workers), (threads, why_threads) = size(settings, machine, servers)
    steps += [Step("workers", workers, why_workers), Step("threads", threads, why_threads)]
    if threads < 1:
        _refuse_no_thread(settings, servers, workers)
    transfer_memory = sizing.transfer_memory(settings, machine, workers, steps)
    servers = [_checked(settings, server, workers, threads, steps) for server in servers]
    pool = _pool(settings, servers, threads, steps)
    return Plan(
        settings.sizing,
        workers,
        threads,
        pool,
        transfer_memory,
        machine,
        tuple(servers),
        tuple(steps),
        _notes(settings, servers),
        beside,
    )


def _given_machine(settings: Settings, machine: Machine) -> tuple[Machine, list[Step]]:
    found = Machine(
        settings.cores or machine.cores,
        settings.memory or machine.memory,
        settings.open_files or machine.open_files,
        settings.sources["cores"] if settings.cores else machine.cores_from,
        settings.sources["memory"] if settings.memory else machine.memory_from,
        settings.sources["open_files"] if settings.open_files else machine.open_files_from,
        machine.worker_memory,
    )
    return found, [
        Step("cores", found.cores, found.cores_from),
        Step("memory", f"{found.memory / (1 << 30):.1f} GiB", found.memory_from),
        Step("open files", found.open_files, found.open_files_from),
    ]


def _budgeted(settings: Settings, limit: Limit, steps: list[Step]) -> ServerPlan:
    """One server's limit, reserve and budget, with their steps. Raises PlanError for a budget over the limit."""
    names = ", ".join(limit.aliases)
    bounds = "; ".join(f"{name} {number}" for name, number in limit.parts)
    reserve, why_reserve = _reserve(settings, limit)
    if settings.budget is not None:
        budget, why_budget = settings.budget, settings.sources["budget"]
        if budget * settings.fixed_hosts > limit.limit:
            raise PlanError(
                f"A budget of {budget} sessions for each of {settings.fixed_hosts} host(s) is over the limit of "
                f"{limit.limit} that {limit.server} grants.\n"
                f"Lower the budget to {limit.limit // settings.fixed_hosts} (--budget), or raise "
                f"{_bounds_below(limit, budget * settings.fixed_hosts)}."
            )
    else:
        budget = max(0, limit.limit - reserve) // settings.fixed_hosts
        why_budget = f"(limit - reserve) / hosts = ({limit.limit} - {reserve}) / {settings.fixed_hosts}"
        if settings.is_fleet:
            why_budget = f"limit - reserve = {limit.limit} - {reserve}, for all hosts together"
    steps.append(Step(f"limit of {names}", limit.limit, bounds))
    steps.append(Step(f"reserve of {names}", reserve, why_reserve))
    steps.append(Step(f"budget of {names}", budget, why_budget))
    most_hosts = _room_for_keepers(limit, budget) if settings.is_fleet else None
    if most_hosts is not None:
        steps.append(
            Step(f"hosts of {names}", f"up to {most_hosts}", "limit - budget: each needs a session for its keeper")
        )
    return ServerPlan(limit, reserve, budget, most_hosts)


def _room_for_keepers(limit: Limit, budget: int) -> int:
    """Hosts that the sessions beside the budget are enough for, one each. Raises PlanError."""
    if limit.stock or limit.pool_sizes:
        raise PlanError(
            f"In a fleet every alias needs an ENGINE of fullhouse, whose sessions are counted on all hosts; of "
            f"{', '.join(limit.aliases)} only {', '.join(limit.pooled) or 'none'} has one.\n"
            "Change the ENGINE (docs/how-to/many-hosts.md), or give each host its part with hosts = NUMBER."
        )
    room = limit.limit - budget
    if room < 1:
        raise PlanError(
            f"A fleet needs a session for each host's keeper beside the budget, and {limit.server} grants "
            f"{limit.limit}, all of which are the budget.\n"
            f"Lower the budget to {budget - 1} or less (--budget), or raise the reserve."
        )
    return min(room, MOST_HOSTS)


def _with_companions(
    settings: Settings, server: ServerPlan, beside: Sequence[Companion], steps: list[Step]
) -> ServerPlan:
    """`server` with what it keeps for the companions, and their steps.

    There is never more than one run of each: a reload ends the old one before it starts the new. Raises PlanError where
    nothing is left to the web.
    """
    limit = server.limit
    kept: list[tuple[str, int]] = []
    for one in beside:
        own = f" + {sum(limit.pool_sizes)} of Django's own pools" if limit.pool_sizes else ""
        aliases = limit.stock + len(limit.pooled)
        sessions = one.count * (one.connections * aliases + sum(limit.pool_sizes))
        why = f"{one.count} × ({one.connections} connection(s) × {aliases} alias(es){own}), processes[{one.name!r}]"
        steps.append(Step(f"{one.name} of {', '.join(limit.aliases)}", sessions, why))
        kept.append((one.name, sessions))
    shared = sum(one.count * one.connections for one in beside) * len(limit.pooled)
    server = replace(server, companions=tuple(kept), shared_with_companions=shared)
    if beside and server.for_web < 1:
        names = ", ".join(f"{name} {sessions}" for name, sessions in kept)
        raise PlanError(
            f"The processes beside the web workers need {server.for_companions} sessions of {limit.server} ({names}), "
            f"and {_budget_text(settings, server)}, which leaves the web none.\n"
            f"Lower their count or connections, or raise {_higher(settings, server, 1)}."
        )
    return server


def host_budget(settings: Settings, limit: Limit) -> ServerPlan:
    """What pools of this host may use of this server. Raises PlanError for a budget of none, or over the limit."""
    server = _budgeted(settings, limit, [])
    budget = server.budget - _kept_to_cancel(settings, server)
    if budget < 1:
        raise PlanError(
            f"The limit of {limit.limit} sessions that {limit.server} grants leaves none for this host: "
            "lower the reserve, or raise the limit."
        )
    return replace(server, budget=budget)


def _reserve(settings: Settings, limit: Limit) -> tuple[int, str]:
    if settings.reserve is not None:
        return settings.reserve, settings.sources["reserve"]
    if settings.sizing == "recipe":
        return RECIPE_RESERVE, "the recipe's"
    tenth = min(RECIPE_RESERVE, ceil(limit.limit / RESERVE_SHARE))
    taken = _taken_by_others(limit)
    if taken > tenth and not settings.is_fleet:  # whose hosts must all come to the same figure, whenever they ask
        return taken, f"other users hold {limit.others} of {limit.shared} sessions now"
    return tenth, f"a tenth of the limit, at most {RECIPE_RESERVE}"


def _taken_by_others(limit: Limit) -> int:
    """Sessions of the limit that others hold now. Beyond a cap of our own account there may be room for them."""
    return max(0, (limit.others or 0) - (limit.shared - limit.limit))


def _refuse_no_thread(settings: Settings, servers: Sequence[ServerPlan], workers: int) -> NoReturn:
    recipe = settings.sizing == "recipe"
    tightest = min(servers, key=lambda server: server.for_web // (1 if recipe else server.per_thread or 1))
    per_thread = max(tightest.per_thread, settings.connections_per_thread if recipe else 0)
    fewer = tightest.for_web // per_thread
    lower = f"Lower the number of workers to {fewer} (--workers)" if fewer else "Lower the reserve (--reserve)"
    raise PlanError(
        f"No thread fits {tightest.limit.server}: {_budget_text(settings, tightest)}, and {workers} worker(s) with one "
        f"thread each need {workers * per_thread}.\n"
        f"{lower}, or raise {_higher(settings, tightest, workers * per_thread)}."
    )


def _budget_text(settings: Settings, server: ServerPlan) -> str:
    facts = f"limit {server.limit.limit}, reserve {server.reserve}, hosts {settings.hosts}"
    if settings.budget is not None:
        facts = f"fixed by {settings.sources['budget']}"
    if server.for_companions:
        facts += f", and {server.for_companions} of it for {', '.join(name for name, _ in server.companions)}"
    return f"this host's budget is {server.budget} sessions ({facts})"


def _higher(settings: Settings, server: ServerPlan, needed: int) -> str:
    """What to raise, and how far, for a budget with `needed` sessions for the web."""
    needed += server.for_companions
    sessions = needed * settings.fixed_hosts
    if settings.budget is not None:
        beyond = f", and with it {_bounds_below(server.limit, sessions)}" if sessions > server.limit.limit else ""
        return f"the budget to {needed} (--budget){beyond}"
    if settings.reserve is not None or settings.sizing == "recipe":
        return _bounds_below(server.limit, sessions + server.reserve)
    # The least limit that leaves so many beside a tenth of it, or RECIPE_RESERVE, or what others hold.
    beside_tenth = ceil(sessions * RESERVE_SHARE / (RESERVE_SHARE - 1))
    limit = max(min(sessions + RECIPE_RESERVE, beside_tenth), sessions + _taken_by_others(server.limit))
    return _bounds_below(server.limit, limit)


def _bounds_below(limit: Limit, sessions: int) -> str:
    names = [name for name, number in limit.parts if number < sessions]
    return f"{' and '.join(names)} to {sessions}"


def _kept_to_cancel(settings: Settings, server: ServerPlan) -> int:
    """Sessions of the budget that no pool gets, so that a statement can be cancelled while all others are busy."""
    left = server.limit.limit - server.budget * settings.fixed_hosts
    return int(server.limit.needs_session_to_cancel and left < settings.fixed_hosts and server.budget > 1)


def _checked(settings: Settings, server: ServerPlan, workers: int, threads: int, steps: list[Step]) -> ServerPlan:
    """`server` with its worst case: what Django's own engines hold in every thread, and the slots of the pools."""
    limit = server.limit
    held = workers * (threads * server.per_thread + server.per_worker)
    if server.per_worker and workers * server.per_worker + len(limit.pooled) > server.for_web:
        _refuse_own_pools(settings, server, workers)
    if held + len(limit.pooled) > server.for_web:
        fitting = (server.for_threads(workers) or 0) // workers
        lower = f"threads to {fitting} (--threads)" if fitting > 0 else "the number of workers (--workers)"
        own = f", each with {sum(limit.pool_sizes)} in Django's own pools" if limit.pool_sizes else ""
        raise PlanError(
            f"The plan needs {held + len(limit.pooled)} sessions of {limit.server} in the worst case ({workers} "
            f"workers × {threads} threads × {limit.stock} alias(es){own}, twice during a reload), and "
            f"{_budget_text(settings, server)}.\n"
            f"Lower {lower}, or raise {_higher(settings, server, held + len(limit.pooled))}."
        )
    held += server.for_companions - server.shared_with_companions
    if not limit.pooled:
        return replace(server, connections=held)
    pooled = len(limit.pooled) + server.shared_with_companions
    kept = _kept_to_cancel(settings, server) if server.budget - held > pooled else 0
    if kept:
        why = "budget - 1 for cancelling statements, since the reserve leaves none"
        steps.append(Step(f"slots of {', '.join(limit.pooled)}", server.budget - held - kept, why))
    slots = (server.budget - held - kept) // limit.users
    fair_share = max(1, (slots * limit.users - server.shared_with_companions) // len(limit.pooled) // workers)
    return replace(server, connections=server.budget, slots=slots, fair_share=fair_share)


def _refuse_own_pools(settings: Settings, server: ServerPlan, workers: int) -> NoReturn:
    limit = server.limit
    held = workers * server.per_worker
    left = server.for_web - len(limit.pooled)
    fewer = left // server.per_worker
    fitting = left // workers // GENERATIONS // len(limit.pool_sizes)
    ways = [f"max_size to {fitting}"] if fitting > 0 else []
    ways += [f"the number of workers to {fewer} (--workers)"] if fewer > 0 else []
    raise PlanError(
        f"Django's own pools (OPTIONS['pool']) may hold {held} sessions of {limit.server} ({workers} workers × "
        f"{' + '.join(map(str, limit.pool_sizes))}, twice during a reload), and {_budget_text(settings, server)}.\n"
        f"Lower {' or '.join(ways) or 'the reserve (--reserve)'}, raise "
        f"{_higher(settings, server, held + len(limit.pooled))}, or use fullhouse's ENGINE, whose pools share the "
        "budget."
    )


def _pool(settings: Settings, servers: Sequence[ServerPlan], threads: int, steps: list[Step]) -> int:
    """Connections that each worker may hold: the recipe's figure, or its share of the slots and one for each thread
    and alias that is not pooled."""
    if settings.sizing == "recipe":
        pool = threads * settings.connections_per_thread
        why = f"threads × connections_per_thread = {threads} × {settings.connections_per_thread}"
    else:
        shared = sum(server.fair_share * len(server.limit.pooled) for server in servers)
        stock = sum(server.limit.stock for server in servers)
        own = sum(sum(server.limit.pool_sizes) for server in servers)
        pool = shared + threads * stock + own
        why = f"threads × networked aliases = {threads} × {stock}"
        if shared:
            why = f"its fair share of the slots, {shared}; more while others leave theirs unused"
            why += f"; and {threads} × {stock} of Django's own engines" if stock else ""
        why += f"; and {own} in Django's own pools" if own else ""
    steps.append(Step("pool", pool, why))
    return pool


def _notes(settings: Settings, servers: Sequence[ServerPlan]) -> tuple[str, ...]:
    if not servers:
        return ("SQLite has no connection limit: only the machine limits the threads, and writers take turns.",)
    notes = []
    for server in servers:
        left = server.limit.shared - server.budget * settings.fixed_hosts
        if server.limit.others is not None and server.limit.others > left:
            notes.append(
                f"Other users hold {server.limit.others} sessions of {server.limit.server} now, and this plan leaves "
                f"them {left}: raise the reserve."
            )
    return tuple(notes)
