"""Whatever an org goes through and however its syncs are disturbed: in the end the warehouse is the org.

Each schedule is a week of an org: people work, admins rebuild, transactions stay open, and in between Plumbline syncs under faults,
with too few calls, while records change under it, or until it is killed. Then the trouble ends, one more sync runs (and a comparison of
all ids before it, where something happened that only that can see), and every table is compared with the org's own.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from schedules.play import HOURS, KILL, NUMBER, QUOTA, act_all, check_rest, directory, disturbed, run_all, run_shard
from schedules.world import ACTS, MEANWHILE, Ground, World

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


def schedules(least: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """least: acts before each sync, at the least; many of them leave little time to shrink, and meet each other the more often."""
    return st.fixed_dictionaries(
        {
            "overlap": st.sampled_from([60, 10]),
            "version": st.sampled_from([None, None, "57.0"]),  # 58.0 is the first with pages side by side
            "rounds": st.lists(st.tuples(st.lists(ACT, min_size=least, max_size=least + 6), HOURS, SYNC), min_size=2 if least else 1, max_size=3),
            "last": st.lists(ACT, min_size=least, max_size=least + 4),
        }
    )


def play(schedule: dict[str, Any], ground: Ground) -> None:
    with directory() as place:
        _play(World(ground, place, overlap=schedule["overlap"], version=schedule["version"]), schedule)


def _play(world: World, schedule: dict[str, Any]) -> None:
    world.create(2, 7)
    for doings, hours, sync in schedule["rounds"]:
        act_all(world, doings)
        world.life_goes_on(hours)
        answer = disturbed(world, sync)
        if answer["status"] == "done" and not (world.sweep_due or sync["meanwhile"] or world.log_is_behind()):
            world.compare("after a sync that said it is done")
        world.a_second_later()
    act_all(world, schedule["last"])

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
    world.org.query_page = None
    check_rest(world, calls=60, api="rest")
    assert len(world.jobs_left()) <= world.lost_jobs, f"Bulk jobs are left in the org: {world.jobs_left()}{world.story()}"


def test_a_handful_of_schedules_ends_with_the_warehouse_equal_to_the_org():
    said = run_shard("salesforce", 6, shard=0)
    assert said is None, said


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_whatever_happens_the_warehouse_ends_equal_to_the_org():
    said = run_all("salesforce")
    assert not said, said
