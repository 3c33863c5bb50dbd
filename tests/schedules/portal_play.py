"""Whatever a portal goes through and however its syncs are disturbed: in the end the warehouse is the portal.

Each schedule is a week of a portal: people work, admins rebuild, search is behind, and in between Plumbline syncs under faults, with too
few calls, while records change under it, or until it is killed. Then the trouble ends, one more sync runs (and a comparison of all ids
before it, where something happened that only that can see), and every table is compared with the portal's own.

Run as a script from the root of the project, it plays schedules and sorts what fails:
    PYTHONPATH=.:tests python tests/schedules/portal_play.py --number 50 --seed 1 [--out FILE] [--without act,act] [--ignoring "table.column,…"]
    PYTHONPATH=.:tests python tests/schedules/portal_play.py --one FILE      one schedule, a Python literal
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from pprint import pformat
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schedules.nursery import KINDS
from schedules.portal_world import ACTS, MEANWHILE, Ground, World

MEMORY = Path("/dev/shm")  # noqa: S108 - what matters is the order of writes, not the disk
NUMBER = st.integers(0, 99)
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
KILL = st.fixed_dictionaries({"kind": st.sampled_from([None, *KINDS]), "number": st.integers(1, 90)})
QUOTA = st.tuples(st.sampled_from(["share", "left"]), st.integers(12, 60))  # no fewer: until the portal has answered once it told no limit
HOURS = st.sampled_from([0, 0.1, 5, 26])  # from what people did to the sync
SYNC = st.fixed_dictionaries(
    {
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
            "last": st.lists(ACT, min_size=least, max_size=least + 4),
        }
    )


SCHEDULE = schedules()


def play(schedule: dict[str, Any], ground: Ground, *, without: tuple[str, ...] = (), ignored: tuple[str, ...] = ()) -> None:
    """without: acts that are left out; ignored: how differences begin that are known and not to be told. A test leaves out nothing."""
    with tempfile.TemporaryDirectory(prefix="schedule-", dir=MEMORY if MEMORY.is_dir() else None) as directory:
        made = {key: schedule[key] for key in ("overlap", "version", "credentials", "lag", "new_survivor")}
        _play(World(ground, Path(directory), **made), schedule, without, ignored)


def _play(world: World, schedule: dict[str, Any], without: tuple[str, ...], ignored: tuple[str, ...]) -> None:
    world.create(2, 7)
    for doings, hours, sync in schedule["rounds"]:
        for name, a, b in doings:
            if name not in without:
                world.act(name, a, b)
        world.life_goes_on(hours)
        behind = world.index_is_behind()
        answer = disturbed(world, {**sync, "meanwhile": [edit for edit in sync["meanwhile"] if edit[1] not in without]})
        if answer["status"] == "done" and not (world.sweep_due or sync["meanwhile"] or behind):
            world.compare("after a sync that said it is done", ignored)
        world.a_second_later()
    for name, a, b in schedule["last"]:
        if name not in without:
            world.act(name, a, b)

    world.faults.clear()
    world.clock.set(max([world.clock.now(), *world.commits]))
    world.life_goes_on(3)
    world.clock.advance(timedelta(seconds=world.lag))  # until search has it too
    if world.sweep_due:
        if "deals" not in world.watermarks:  # nothing to compare with
            world.sync()
        world.sync(flow="reconcile")
    answer = world.sync()
    assert answer["status"] == "done", world.story()
    world.compare("at the end", ignored)
    still = world.still()
    again = world.sync(sizes="own")
    counts = {o["object"]: [o[key] for key in ("inserted", "changed", "deleted")] for o in again["document"]["sources"][0]["objects"]}
    assert not any(map(any, counts.values())), f"a sync of a portal in which nothing happened changed something: {counts}{world.story()}"
    moved = [name for name, fingerprint in world.still().items() if fingerprint != still[name]]
    assert not moved, f"a sync of a portal in which nothing happened changed {', '.join(moved)}{world.story()}"
    assert world.ground.asked <= 30, f"{world.ground.asked} calls for a night without changes{world.story()}"
    assert world.sync(flow="reconcile")["document"]["status"] == "clean", world.story()


def disturbed(world: World, sync: dict[str, Any]) -> dict[str, Any]:
    """A sync under what the schedule has in store for it; the trouble is over when it has ended."""
    for fault in sync["faults"]:
        world.arm(**fault)
    for number, name, a, b in sync["meanwhile"]:
        world.plan_meanwhile(number, name, a, b)
    answer = world.sync(sizes=sync["sizes"], streams=sync["streams"], kill=sync["kill"], quota=sync["quota"], full=sync["full"])
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


def kinds_of(error: BaseException) -> list[str]:
    """What a failure is about: the tables and columns that differ, or its first words."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines or "differences" not in lines[0]:
        return [f"{type(error).__name__}: {lines[0][:70] if lines else ''}"]
    told = lines[1 : 1 + min(25, int(lines[0].split()[0]))]
    return sorted({line.split()[0].rstrip(":") + (", a deal is missing" if "not in the warehouse" in line else "") for line in told})


def explore(number: int, seed_: int, out: Path, *, without: tuple[str, ...], ignored: tuple[str, ...], until: float, least: int) -> None:
    """Play schedules, going on after failures; tell each failure's first lines, and write its whole story and schedule to `out`."""
    ground, failures, seconds = Ground(), Counter[str](), list[float]()
    failed: list[int] = []

    @seed(seed_)
    @settings(
        max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )  # fmt: skip
    @given(schedules(least))
    def each(schedule: dict[str, Any]) -> None:
        if time.time() > until:
            return
        started = time.perf_counter()
        try:
            play(schedule, ground, without=without, ignored=ignored)
        except Exception as error:
            failed.append(len(seconds) + 1)
            failures.update(kinds := kinds_of(error))
            print(f"--- {len(seconds) + 1}: {'; '.join(kinds)}\n    " + "\n    ".join(str(error).splitlines()[:4])[:900], flush=True)
            with out.open("a", encoding="utf-8") as file:
                file.write(f"=== seed {seed_}, schedule {len(seconds) + 1}: {'; '.join(kinds)}\n{error}\n\n{pformat(schedule, width=150)}\n\n")
        seconds.append(time.perf_counter() - started)

    try:
        each()
    finally:
        ground.close()
    print(f"\n{len(seconds)} schedules, {len(failed)} failed, {sum(seconds) / max(1, len(seconds)):.2f} seconds each")
    for kind, times in failures.most_common():
        print(f"{times:4}  {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("portal-failures.txt"))
    parser.add_argument("--without", default="", help="acts that are left out")
    parser.add_argument("--ignoring", default="", help="how differences begin that are known")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="play no further schedule after so long")
    parser.add_argument("--least", type=int, default=0, help="acts before each sync, at the least")
    parser.add_argument("--one", type=Path, help="a file with one schedule, a Python literal")
    given_ = parser.parse_args()
    without, ignored = (tuple(filter(None, text.split(","))) for text in (given_.without, given_.ignoring))
    if given_.one is None:
        until = time.time() + given_.seconds
        explore(given_.number, given_.seed, given_.out, without=without, ignored=ignored, until=until, least=given_.least)
        return
    ground = Ground()
    try:
        play(ast.literal_eval(given_.one.read_text(encoding="utf-8")), ground, without=without, ignored=ignored)
    except AssertionError as error:
        sys.exit(str(error))
    finally:
        ground.close()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
