"""Whatever an org goes through and however its syncs are disturbed: in the end the warehouse is the org.

Each schedule is a week of an org: people work, admins rebuild, transactions stay open, and in between Plumbline syncs under faults,
with too few calls, while records change under it, or until it is killed. Then the trouble ends, one more sync runs (and a comparison of
all ids before it, where something happened that only that can see), and every table is compared with the org's own.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schedules.nursery import KINDS
from schedules.world import ACTS, MEANWHILE, Ground, World

SCHEDULES = int(os.environ.get("PLUMBLINE_SCHEDULES", "500"))
MEMORY = Path("/dev/shm")  # noqa: S108 - what matters is the order of writes, not the disk
NUMBER = st.integers(0, 99)
ACT = st.tuples(st.sampled_from(ACTS), NUMBER, NUMBER)
EDIT = st.tuples(st.integers(1, 60), st.sampled_from(MEANWHILE), NUMBER, NUMBER)  # before which call of a sync, and what
FAULT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["401", "403 limit", "429", "500", "503", "drop", "lost answer", "truncate", "slow", "expire", "job failed"]),
        "path": st.sampled_from([None, "/query", "/queryAll", "/results", "/jobs/query", "/describe", "/deleted", "/oauth2/"]),
        "after": st.integers(0, 25),
        "times": st.sampled_from([1, 1, 2, 3, 9]),
    }
)
KILL = st.fixed_dictionaries({"kind": st.sampled_from([None, *KINDS]), "number": st.integers(1, 90)})
QUOTA = st.tuples(st.sampled_from(["share", "left"]), st.integers(12, 60))  # no fewer: until the org has answered once it told no limit
HOURS = st.sampled_from([0, 0.1, 5, 26])  # from what people did to the sync
SYNC = st.fixed_dictionaries(
    {
        "api": st.sampled_from(["auto", "auto", "rest", "bulk"]),
        "bulk_from": st.sampled_from([2, 6, 10_000]),
        "streams": st.sampled_from([1, 1, 1, 5]),
        "faults": st.lists(FAULT, max_size=2),
        "kill": st.none() | KILL,
        "quota": st.none() | st.none() | QUOTA,
        "meanwhile": st.just([]) | st.lists(EDIT, max_size=2),
        "full": st.sampled_from([False] * 5 + [True]),
    }
)
SCHEDULE = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from([60, 10]),
        "version": st.sampled_from([None, None, "57.0"]),  # 58.0 is the first with pages side by side
        "rounds": st.lists(st.tuples(st.lists(ACT, max_size=6), HOURS, SYNC), min_size=1, max_size=3),
        "last": st.lists(ACT, max_size=4),
    }
)


def play(schedule: dict[str, Any], ground: Ground) -> None:
    with tempfile.TemporaryDirectory(prefix="schedule-", dir=MEMORY if MEMORY.is_dir() else None) as directory:
        _play(World(ground, Path(directory), overlap=schedule["overlap"], version=schedule["version"]), schedule)


def _play(world: World, schedule: dict[str, Any]) -> None:
    world.create(2, 7)
    for doings, hours, sync in schedule["rounds"]:
        for name, a, b in doings:
            world.act(name, a, b)
        world.life_goes_on(hours)
        answer = disturbed(world, sync)
        if answer["status"] == "done" and not (world.sweep_due or sync["meanwhile"] or world.log_is_behind()):
            world.compare("after a sync that said it is done")
        world.a_second_later()
    for name, a, b in schedule["last"]:
        world.act(name, a, b)

    world.faults.clear()
    world.clock.set(max([world.clock.now(), *world.commits]))
    world.life_goes_on(3)
    if world.sweep_due:
        if "Opportunity" not in world.watermarks:  # nothing to compare with; and a pull that went on with an earlier one is as old as that one
            world.sync()
        world.sync(flow="reconcile")
    answer = world.sync()
    assert answer["status"] == "done", world.story()
    world.compare("at the end")
    still = world.still()
    world.org.query_page = None
    again = world.sync(api="rest")
    counts = {o["object"]: [o[key] for key in ("inserted", "changed", "deleted")] for o in again["document"]["sources"][0]["objects"]}
    assert not any(map(any, counts.values())), f"a sync of an org in which nothing happened changed something: {counts}{world.story()}"
    moved = [name for name, fingerprint in world.still().items() if fingerprint != still[name]]
    assert not moved, f"a sync of an org in which nothing happened changed {', '.join(moved)}{world.story()}"
    assert world.ground.asked <= 60, f"{world.ground.asked} calls for a night without changes{world.story()}"
    assert world.sync(flow="reconcile")["document"]["status"] == "clean", world.story()
    assert len(world.jobs_left()) <= world.lost_jobs, f"Bulk jobs are left in the org: {world.jobs_left()}{world.story()}"


def disturbed(world: World, sync: dict[str, Any]) -> dict[str, Any]:
    """A sync under what the schedule has in store for it; the trouble is over when it has ended."""
    for fault in sync["faults"]:
        world.arm(**fault)
    for number, name, a, b in sync["meanwhile"]:
        world.plan_meanwhile(number, name, a, b)
    answer = world.sync(
        api=sync["api"], bulk_from=sync["bulk_from"], streams=sync["streams"], kill=sync["kill"], quota=sync["quota"], full=sync["full"]
    )  # fmt: skip
    world.faults.clear()
    world.ground.meanwhile.clear()
    return answer


def property_of(number: int, shard: int, ground: Ground) -> Any:
    """The property, to be called without arguments."""

    @seed(shard)
    @settings(
        max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True, report_multiple_bugs=False
    )  # fmt: skip
    @given(SCHEDULE)
    def check(schedule: dict[str, Any]) -> None:
        play(schedule, ground)

    return check


def run_shard(number: int, shard: int) -> str | None:
    """What failed, in words; None when nothing did."""
    ground = Ground()
    try:
        property_of(number, shard, ground)()
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    finally:
        ground.close()
    return None


def test_a_handful_of_schedules_ends_with_the_warehouse_equal_to_the_org():
    said = run_shard(6, shard=0)
    assert said is None, said


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_whatever_happens_the_warehouse_ends_equal_to_the_org():
    """PLUMBLINE_SCHEDULES tells how many (500); each processor plays its share of them."""
    shards = max(1, min(os.cpu_count() or 1, SCHEDULES))
    with ProcessPoolExecutor(shards, mp_context=get_context("spawn")) as pool:
        said = list(pool.map(run_shard, [SCHEDULES // shards] * shards, range(1, shards + 1)))
    assert not any(said), "\n\n".join(filter(None, said))
