"""Whatever a portal goes through and however its syncs are disturbed: in the end the warehouse is the portal.

Each schedule is a week of a portal: people work, admins rebuild, search is behind, and in between Plumbline syncs under faults, with too
few calls, while records change under it, or until it is killed. Then the trouble ends, one more sync runs (and a comparison of all ids
before it, where something happened that only that can see), and every table is compared with the portal's own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from schedules.play import HOURS, KILL, NUMBER, QUOTA, act_all, check_rest, directory, disturbed, run_all, run_shard
from schedules.portal_world import ACTS, MEANWHILE, Ground, World

ACT = st.tuples(st.sampled_from(ACTS), NUMBER, NUMBER)
EDIT = st.tuples(st.integers(1, 40), st.sampled_from(MEANWHILE), NUMBER, NUMBER)  # before which call of a sync, and what
FAULT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            ["401", "423", "429", "429 second", "429 day", "477", "500", "502", "503", "drop", "truncate", "slow", "expire"]
        ),
        "path": st.sampled_from(
            [None, None, "/search", "/objects/(2026-09/)?deals", "archived=true", "/batch/read", "/associations/", "/owners", "/pipelines/",
             "/properties/", "/companies", "/oauth/", "/account-info/"]
        ),
        "after": st.integers(0, 15),
        "times": st.sampled_from([1, 1, 2, 3, 9]),
    }
)  # fmt: skip
SYNC = st.fixed_dictionaries(
    {
        "flow": st.sampled_from(["sync"] * 7 + ["reconcile"]),
        "sizes": st.sampled_from(["small", "small", "narrow", "own"]),
        "streams": st.sampled_from([1, 1, 1, 4]),
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
            "overlap": st.sampled_from([60, 15]),
            "version": st.sampled_from(["v3", "v3", "2026-09"]),
            "credentials": st.sampled_from(["token", "oauth"]),
            "lag": st.sampled_from([0, 0, 20, 600]),
            "new_survivor": st.booleans(),
            "rounds": st.lists(st.tuples(st.lists(ACT, min_size=least, max_size=least + 6), HOURS, SYNC), min_size=2 if least else 1, max_size=3),
            "full": st.booleans(),
            "last": st.lists(ACT, min_size=least, max_size=least + 4),
        }
    )


def play(schedule: dict[str, Any], ground: Ground) -> None:
    with directory() as place:
        made = {key: schedule[key] for key in ("overlap", "version", "credentials", "lag", "new_survivor")}
        _play(World(ground, place, **made), schedule)


def _play(world: World, schedule: dict[str, Any]) -> None:
    world.create(2, 7)
    for doings, hours, sync in schedule["rounds"]:
        act_all(world, doings)
        world.life_goes_on(hours)
        behind = world.index_is_behind()
        answer = disturbed(world, sync)
        if answer["status"] == "done" and sync["flow"] == "sync" and not (world.sweep_due or sync["meanwhile"] or behind):
            world.compare("after a sync that said it is done")
        world.a_second_later()
    act_all(world, schedule["last"])

    world.faults.clear()
    world.clock.set(max([world.clock.now(), *world.commits]))
    world.life_goes_on(3)
    world.clock.advance(timedelta(seconds=world.lag))  # until search has it too
    if world.sweep_due:
        if "deals" not in world.watermarks:  # nothing to compare with
            world.sync()
        world.sync(flow="reconcile")
    answer = world.sync(full=schedule["full"])
    assert answer["status"] == "done", world.story()
    world.compare("at the end")
    check_rest(world, calls=30, sizes="own")


def test_a_handful_of_schedules_ends_with_the_warehouse_equal_to_the_portal():
    said = run_shard("hubspot", 6, shard=0)
    assert said is None, said


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_whatever_happens_the_warehouse_ends_equal_to_the_portal():
    said = run_all("hubspot")
    assert not said, said
