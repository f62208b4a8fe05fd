"""The arithmetic of the plan, case by case."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullhouse.errors import PlanError
from fullhouse.plan.limits import Limit, merged
from fullhouse.plan.machine import Machine
from fullhouse.plan.plan import Plan
from fullhouse.plan.planner import host_budget, make_plan
from fullhouse.plan.report import server_line
from fullhouse.settings.layers import layered
from fullhouse.settings.table import Settings

GIB = 1 << 30
ROOMY = Machine(cores=4, memory=16 * GIB, open_files=65536)


def server(limit: int, *aliases: str, others: int | None = None, **caps: int) -> Limit:
    """A server that grants `limit` sessions to everybody, and fewer to this account where `caps` say so."""
    parts = (("max_connections", limit), *caps.items())
    return Limit("MariaDB", aliases or ("default",), min(number for _, number in parts), parts, others, 0)


def plan(*limits: Limit, machine: Machine = ROOMY, **options: Any) -> Plan:
    return make_plan(layered(Settings(), options, "test"), machine, limits)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 64])
def test_recipe_is_exactly_the_classic_one(cores: int) -> None:
    recipe = plan(server(1000), sizing="recipe", reserve=40, cores=cores)
    assert recipe.workers == 2 * cores + 1
    assert recipe.threads == int(480 / recipe.workers)
    assert recipe.pool == 2 * recipe.threads


@dataclass
class Case:
    """A plan's input, and the workers, threads and budget expected of it."""

    workers: int
    threads: int
    budget: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    machine: Machine = ROOMY


RECIPE = {"sizing": "recipe"}
CASES = {
    "recipe reserves 40 by itself": Case(9, 53, 960, RECIPE, (server(1000),)),
    "recipe counts a half core": Case(4, 120, 960, {**RECIPE, "cores": 1.5}, (server(1000),)),
    "recipe on less than a core": Case(2, 240, 960, {**RECIPE, "cores": 0.5}, (server(1000),)),
    "recipe with three connections a thread": Case(
        9, 35, 960, {**RECIPE, "connections_per_thread": 3}, (server(1000),)
    ),
    "recipe with workers by hand": Case(4, 120, 960, {**RECIPE, "workers": 4}, (server(1000),)),
    "recipe with threads by hand": Case(9, 10, 960, {**RECIPE, "threads": 10}, (server(1000),)),
    "recipe on two hosts": Case(9, 26, 480, {**RECIPE, "hosts": 2}, (server(1000),)),
    "recipe without a networked database": Case(9, 128, None, RECIPE),
    "fit: a thread holds a connection, twice during a reload": Case(4, 16, 135, {}, (server(151),)),
    "fit: no more threads than one process runs well": Case(4, 128, 9960, {}, (server(10_000),)),
    "fit: the reserve of a small server is a tenth": Case(4, 2, 18, {}, (server(20),)),
    "fit: reserve by hand": Case(4, 12, 100, {"reserve": 51}, (server(151),)),
    "fit: no reserve": Case(4, 18, 151, {"reserve": 0}, (server(151),)),
    "fit: hosts share equally, rounded down": Case(4, 5, 45, {"hosts": 3}, (server(151),)),
    "fit: budget by hand needs no reserve": Case(4, 18, 151, {"budget": 151}, (server(151),)),
    "fit: budget and workers by hand": Case(2, 5, 20, {"budget": 20, "workers": 2}, (server(151),)),
    "fit: threads by hand": Case(4, 3, 135, {"threads": 3}, (server(151),)),
    "fit: fewer workers where the budget carries fewer": Case(3, 1, 6, {"budget": 6}, (server(151),)),
    "fit: a fraction of a core is one worker": Case(1, 67, 135, {"cores": 0.4}, (server(151),)),
    "fit: two and a half cores are three workers": Case(3, 22, 135, {"cores": 2.5}, (server(151),)),
    "fit: two aliases of one server share its sessions": Case(4, 8, 135, {}, (server(151, "default", "replica"),)),
    "fit: the tightest of two servers decides": Case(4, 4, 360, {}, (server(400), server(40, "log"))),
    "fit: more aliases can be tighter than a lower limit": Case(
        4, 5, 135, {}, (server(151, "a", "b", "c"), server(100, "log"))
    ),
    "fit: others hold more than a tenth": Case(4, 11, 91, {}, (server(151, others=60),)),
    "fit: others do not eat up a cap of our own account": Case(4, 2, 18, {}, (server(500, others=50, account=20),)),
    "fit: others reach into a cap of our own account": Case(4, 1, 10, {}, (server(60, others=50, account=20),)),
    "fit: companions come off the budget": Case(
        4, 15, 135, {"processes": {"tasks": {"command": "x", "connections": 8}}}, (server(151),)
    ),
    "recipe: companions come off the budget": Case(
        9,
        53,
        968,
        {**RECIPE, "reserve": 32, "processes": {"tasks": {"command": "x", "connections": 8}}},
        (server(1000),),
    ),
    "fit: SQLite alone": Case(4, 128),
    "fit: memory for a few threads": Case(1, 16, None, {"cores": 1, "memory": 342 << 20}),
    "fit: memory below one worker": Case(1, 1, None, {"cores": 1, "memory": "64M"}),
    "fit: open files for a few threads": Case(4, 12, None, {"open_files": 100}),
    "fit: open files below one thread": Case(4, 1, None, {"open_files": 64}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_arithmetic(case: Case) -> None:
    made = plan(*case.limits, machine=case.machine, **case.options)
    assert (made.workers, made.threads) == (case.workers, case.threads)
    assert [part.budget for part in made.servers[:1]] == ([] if case.budget is None else [case.budget])
    assert made.requests == case.workers * case.threads


@dataclass
class Refusal:
    """A plan that cannot fit: what its error says, and the two remedies, each of which makes it fit."""

    message: str
    limit: Limit
    options: dict[str, Any]
    lowered: dict[str, Any]
    raised: dict[str, Any]


REFUSALS = {
    "threads by hand": Refusal(
        r"The plan needs 400 .* budget is 135 sessions \(limit 151, reserve 16, hosts 1\)"
        r"\.\nLower threads to 16 \(--threads\), or raise max_connections to 440\.",
        server(151),
        {"threads": 50},
        lowered={"threads": 16},
        raised={"limit": server(440)},
    ),
    "workers by hand": Refusal(
        r"No thread fits MariaDB: .* is 18 sessions .* and 50 worker\(s\) with one thread each need 100\."
        r"\nLower the number of workers to 9 \(--workers\), or raise max_connections to 112\.",
        server(20),
        {"workers": 50},
        lowered={"workers": 9},
        raised={"limit": server(112)},
    ),
    "the reserve leaves nothing": Refusal(
        r"No thread fits MariaDB: .* is 0 sessions \(limit 30, reserve 40, hosts 1\), and 9 worker\(s\) .* need 18\."
        r"\nLower the reserve \(--reserve\), or raise max_connections to 58\.",
        server(30),
        RECIPE,
        lowered={"reserve": 10, "workers": 2},
        raised={"limit": server(58)},
    ),
    "both bounds are too low": Refusal(
        r"raise max_connections and account to 45\.",
        server(20, account=10),
        {"threads": 5},
        lowered={"threads": 1},
        raised={"limit": server(45, account=45)},
    ),
    "the cap of the account is too low": Refusal(
        r"raise account to 112\.",
        server(500, account=20),
        {"workers": 50},
        lowered={"workers": 9},
        raised={"limit": server(500, account=112)},
    ),
    "the budget is fixed by hand": Refusal(
        r"is 20 sessions \(fixed by test\)\."
        r"\nLower threads to 2 \(--threads\), or raise the budget to 80 \(--budget\)\.",
        server(151),
        {"budget": 20, "threads": 10},
        lowered={"threads": 2},
        raised={"budget": 80},
    ),
    "the budget is over the limit": Refusal(
        r"A budget of 100 sessions for each of 2 host\(s\) is over the limit of 151 that MariaDB grants\."
        r"\nLower the budget to 75 \(--budget\), or raise max_connections to 200\.",
        server(151),
        {"budget": 100, "hosts": 2},
        lowered={"budget": 75},
        raised={"limit": server(200)},
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_a_plan_that_cannot_fit_is_refused_with_remedies_that_work(case: Refusal) -> None:
    with pytest.raises(PlanError, match=case.message):
        plan(case.limit, **case.options)
    assert plan(case.limit, **{**case.options, **case.lowered}).threads > 0
    raised = dict(case.raised)
    assert plan(raised.pop("limit", case.limit), **{**case.options, **raised}).threads > 0


@given(
    sizing=st.sampled_from(["fit", "recipe"]),
    limit=st.integers(1, 2000),
    others=st.integers(0, 300),
    aliases=st.integers(1, 3),
    cores=st.floats(0.1, 64),
    hosts=st.integers(1, 5),
    workers=st.none() | st.integers(1, 40),
)
def test_a_plan_fits_or_is_refused(
    sizing: str, limit: int, others: int, aliases: int, cores: float, hosts: int, workers: int | None
) -> None:
    granted = server(limit, *map(str, range(aliases)), others=others)
    try:
        made = plan(granted, sizing=sizing, cores=cores, hosts=hosts, workers=workers)
    except PlanError:
        return
    assert made.workers >= 1
    assert made.threads >= 1
    (part,) = made.servers
    worst = made.workers * made.threads * aliases * 2
    assert part.connections == worst <= part.budget
    assert part.budget * hosts + part.reserve <= limit


def test_every_number_says_where_it_comes_from() -> None:
    steps = {step.name: step for step in plan(server(1000, account=200), cores=8, threads=2).steps}
    assert steps["cores"].why == "test"
    assert steps["threads"].why == "test"
    assert steps["limit of default"].why == "max_connections 1000; account 200"
    assert steps["budget of default"].why == "(limit - reserve) / hosts = (200 - 20) / 1"
    assert steps["workers"].why == "one per core"


def test_notes_tell_what_the_numbers_do_not() -> None:
    assert "SQLite has no connection limit" in plan().notes[0]
    crowded = plan(server(151, others=60), reserve=20)
    assert crowded.notes == (
        "Other users hold 60 sessions of MariaDB now, and this plan leaves them 20: raise the reserve.",
    )
    assert plan(server(500, others=60, account=20), reserve=0).notes == ()


def test_aliases_of_one_server_count_every_bound_once() -> None:
    both = merged([server(100, "default", others=3), server(100, "replica", others=5, account=30)])
    assert both.aliases == ("default", "replica")
    assert both.limit == 30
    assert both.parts == (("max_connections", 100), ("account", 30))
    assert both.others == 5


def pooled(limit: int, *aliases: str, stock: tuple[str, ...] = (), users: int = 1) -> Limit:
    """A server whose `aliases` have an engine of ours, and whose `stock` ones have Django's own."""
    parts = (("max_connections", limit),)
    return Limit("MariaDB", (*aliases, *stock), limit, parts, 0, 0, pooled=aliases, users=users)


def test_pooled_aliases_do_not_bind_threads_to_connections() -> None:
    made = plan(pooled(151, "default"))
    (house,) = made.servers
    assert (made.workers, made.threads) == (4, 128)
    assert (house.slots, house.connections, house.fair_share, made.pool) == (135, 135, 33, 33)


def test_two_users_of_one_server_share_its_budget() -> None:
    (house,) = plan(pooled(151, "default", "replica", users=2)).servers
    assert (house.slots, house.fair_share) == (67, 16)


def test_pooled_and_stock_aliases_split_the_budget() -> None:
    made = plan(pooled(151, "default", stock=("legacy",)))
    (house,) = made.servers
    assert made.threads == 135 // 2 // 2 // 4
    assert house.slots == 135 - 4 * made.threads * 2
    assert house.connections == house.budget == 135


@pytest.mark.parametrize(
    ("options", "slots"),
    [({"budget": 20}, 19), ({"reserve": 0}, 19), ({"budget": 19}, 19), ({}, 18), ({"hosts": 2, "reserve": 0}, 9)],
)
def test_where_cancelling_takes_a_session_one_is_kept_for_each_host(options: dict[str, Any], slots: int) -> None:
    limit = replace(pooled(20, "default"), needs_session_to_cancel=True)
    (found,) = plan(limit, **options).servers
    assert found.slots == slots
    assert host_budget(layered(Settings(), options, "test"), limit).budget == slots


def test_the_only_session_is_for_the_site() -> None:
    (found,) = plan(replace(pooled(1, "default"), needs_session_to_cancel=True), budget=1).servers
    assert found.slots == 1


def test_a_budget_too_small_for_a_slot_is_refused() -> None:
    with pytest.raises(PlanError, match=r"needs 1 sessions .* and this host's budget is 0 sessions"):
        plan(pooled(10, "default"), reserve=10)


def own_pools(limit: int, *sizes: int, pooled: int = 0) -> Limit:
    """A server with an alias for each pool of Django's own, and so many on ours."""
    aliases = [f"own{number}" for number in range(len(sizes))], [f"ours{number}" for number in range(pooled)]
    return replace(server(limit, *aliases[0], *aliases[1]), pool_sizes=sizes, pooled=tuple(aliases[1]))


def test_pools_of_django_are_counted_by_worker_and_generation() -> None:
    made = plan(own_pools(200, 20, pooled=1), workers=2)
    assert made.servers[0].connections == made.servers[0].budget == 180
    assert made.servers[0].slots == 180 - 2 * 20 * 2
    assert made.threads == plan(workers=2).threads  # they hold no connection of their own
    assert made.pool == 20 + made.servers[0].fair_share


def test_pools_of_django_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PlanError) as refused:
        plan(own_pools(18, 40), workers=2, reserve=2)
    assert str(refused.value) == (
        "Django's own pools (OPTIONS['pool']) may hold 160 sessions of MariaDB (2 workers × 40, twice during a "
        "reload), and this host's budget is 16 sessions (limit 18, reserve 2, hosts 1).\n"
        "Lower max_size to 4, raise max_connections to 162, or use fullhouse's ENGINE, whose pools share the budget."
    )
    assert plan(own_pools(18, 4), workers=2, reserve=2).servers[0].connections == 16
    assert plan(own_pools(162, 40), workers=2, reserve=2).servers[0].connections == 160


def test_threads_get_what_pools_of_django_leave() -> None:
    both = replace(own_pools(100, 10), aliases=("own0", "stock"))
    made = plan(both, workers=2, reserve=0)
    assert made.threads == (100 - 2 * 10 * 2) // 2 // 2
    assert made.servers[0].connections == 100


MIB = 1 << 20


@pytest.mark.parametrize(
    ("machine", "options", "size"),
    [
        (ROOMY, {}, 64 * MIB),
        (replace(ROOMY, cores=2, memory=512 * MIB), {}, 32 * MIB),
        (replace(ROOMY, cores=2, memory=512 * MIB), {"transfer_memory": 64 * MIB}, 64 * MIB),
    ],
)
def test_memory_for_requests_on_their_way(machine: Machine, options: dict[str, Any], size: int) -> None:
    made = plan(server(100), machine=machine, **options)
    assert made.transfer_memory == size
    assert made.workers * size <= machine.memory / 4


def test_more_memory_for_requests_than_stays_free_is_refused() -> None:
    with pytest.raises(PlanError, match=r"2 worker.* need 130 MiB.* is 128 MiB\.\nLower transfer_memory to 64 MiB"):
        plan(server(100), machine=replace(ROOMY, cores=2, memory=512 * MIB), transfer_memory=65 * MIB)


def test_threads_fit_into_what_workers_leave_which_is_measured_where_one_runs() -> None:
    small = Machine(cores=2, memory=1 * GIB, open_files=65536)
    guessed, measured = plan(machine=small), plan(machine=replace(small, worker_memory=30 << 20))
    assert guessed.threads == (768 - 2 * 128) // (2 * 8)
    assert measured.threads == (768 - 2 * 30) // (2 * 8)
    assert "at 128 MiB per worker (assumed) and 8 MiB per thread" in str(guessed.steps)
    assert "at 30 MiB per worker (measured)" in str(measured.steps)


def test_companions_get_their_part_of_the_slots_and_the_web_the_rest() -> None:
    pooled = replace(server(100), pooled=("default",), others=None)
    tasks = {"command": "worker", "count": 2, "connections": 4}
    made = plan(pooled, reserve=8, processes={"tasks": tasks, "beat": "beat"})
    (part,) = made.servers
    assert (part.budget, part.slots, part.for_web) == (92, 92, 83)
    assert part.companions == (("tasks", 8), ("beat", 1))
    assert part.fair_share * made.workers + part.for_companions <= part.slots
    assert server_line(part) == (
        "default: MariaDB, 92 connections at most, of a budget of 92 (web 83, tasks 8, beat 1), reserve 8"
    )
    names = {step.name: (step.value, step.why) for step in made.steps}
    assert names["tasks of default"] == (8, "2 × (4 connection(s) × 1 alias(es)), processes['tasks']")


def test_companions_on_djangos_engines_hold_theirs_once() -> None:
    """A reload ends them before it starts them anew, and so they are not counted twice."""
    made = plan(server(151), processes={"tasks": {"command": "worker", "connections": 8}})
    (part,) = made.servers
    assert part.connections == made.workers * made.threads * 2 + 8 <= part.budget


def test_companions_that_leave_the_web_nothing_are_refused() -> None:
    with pytest.raises(PlanError) as refused:
        plan(server(20), processes={"tasks": {"command": "worker", "connections": 18}})
    assert str(refused.value) == (
        "The processes beside the web workers need 18 sessions of MariaDB (tasks 18), and this host's budget is 18 "
        "sessions (limit 20, reserve 2, hosts 1, and 18 of it for tasks), which leaves the web none.\n"
        "Lower their count or connections, or raise max_connections to 22."
    )
    assert plan(server(24), processes={"tasks": {"command": "worker", "connections": 18}}).threads == 1
