"""How the schedules of a CRM are played: by its test, in shards; and by who looks for failures and goes on after each.

A test module has `Ground`, `schedules(least)`, its strategy, and `play(schedule, ground)`. Run as a script from the root of the project,
this plays its schedules and sorts what fails:
    PYTHONPATH=.:tests python tests/schedules/play.py hubspot --number 50 --seed 1 [--out FILE] [--without act,act] [--ignoring "table.column,…"]
    PYTHONPATH=.:tests python tests/schedules/play.py hubspot --one FILE      one schedule, a Python literal
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from pprint import pformat
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schedules.common import World
from schedules.nursery import KINDS

SCHEDULES = int(os.environ.get("PLUMBLINE_SCHEDULES", "500"))
MEMORY = Path("/dev/shm")  # noqa: S108 - what matters is the order of writes, not the disk
NUMBER = st.integers(0, 99)
STEPS = {"request": 40, "file": 120, "load": 24, "record": 10}  # about as many as a sync of a small CRM takes
KILL = st.one_of(
    st.fixed_dictionaries({"kind": st.just(kind), "number": st.integers(1, STEPS.get(kind, 120))}) for kind in (*KINDS, None)
)  # fmt: skip
QUOTA = st.tuples(st.sampled_from(["share", "left"]), st.integers(12, 60))  # no fewer: until the CRM has answered once it told no limit
HOURS = st.sampled_from([0, 0.1, 5, 26])  # from what people did to the sync
SETTINGS: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "report_multiple_bugs": False}

Play = Callable[[dict[str, Any], Any], None]


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory, in memory where there is one."""
    with tempfile.TemporaryDirectory(prefix="schedule-", dir=MEMORY if MEMORY.is_dir() else None) as place:
        yield Path(place)


def act_all(world: World, doings: list[tuple[str, int, int]]) -> None:
    for name, a, b in doings:
        world.act(name, a, b)


def disturbed(world: Any, schedule: dict[str, Any]) -> dict[str, Any]:
    """A sync under what the schedule has in store for it; the trouble is over when it has ended."""
    of_the_sync = dict(schedule)
    for fault in of_the_sync.pop("faults"):
        world.arm(**fault)
    for number, name, a, b in of_the_sync.pop("meanwhile"):
        world.plan_meanwhile(number, name, a, b)
    answer: dict[str, Any] = world.sync(**of_the_sync)
    world.faults.clear()
    world.ground.meanwhile.clear()
    return answer


def check_rest(world: Any, *, calls: int, **sync: Any) -> None:
    """A sync of a CRM in which nothing happened, `sync` its arguments, changes nothing, and costs at most so many calls."""
    still = world.still()
    again = world.sync(**sync)
    assert again["status"] == "done", world.story()
    counts = {o["object"]: [o[key] for key in ("inserted", "changed", "deleted")] for o in again["document"]["sources"][0]["objects"]}
    assert not any(map(any, counts.values())), f"a sync of a CRM in which nothing happened changed something: {counts}{world.story()}"
    moved = [name for name, fingerprint in world.still().items() if fingerprint != still[name]]
    assert not moved, f"a sync of a CRM in which nothing happened changed {', '.join(moved)}{world.story()}"
    assert world.ground.asked <= calls, f"{world.ground.asked} calls for a night without changes{world.story()}"
    assert world.sync(flow="reconcile")["document"]["status"] == "clean", world.story()


def run_shard(crm: str, number: int, shard: int) -> str | None:
    """Play schedules of tests/test_<crm>_schedules.py. What failed, made as short as it can be, in words; None when nothing did."""
    test = import_module(f"test_{crm}_schedules")
    ground = test.Ground()

    @seed(shard)
    @settings(max_examples=number, print_blob=True, **SETTINGS)
    @given(test.schedules())
    def check(schedule: dict[str, Any]) -> None:
        test.play(schedule, ground)

    try:
        check()
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    finally:
        ground.close()
    return None


def run_all(crm: str) -> str:
    """PLUMBLINE_SCHEDULES of them (500); each processor plays its share. What failed, in words."""
    shards = max(1, min(os.cpu_count() or 1, SCHEDULES))
    with ProcessPoolExecutor(shards, mp_context=get_context("spawn")) as pool:
        said = list(pool.map(partial(run_shard, crm), [SCHEDULES // shards] * shards, range(1, shards + 1)))
    return "\n\n".join(filter(None, said))


# ---- looking for failures ---------------------------------------------------------------------------------------------------------


def kinds_of(error: BaseException) -> list[str]:
    """What a failure is about: the tables and columns that differ, or its first words."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines or "differences" not in lines[0]:
        return [f"{type(error).__name__}: {lines[0][:70] if lines else ''}"]
    told = lines[1 : 1 + min(25, int(lines[0].split()[0]))]
    return sorted({line.split()[0].rstrip(":") + (", a deal is missing" if "not in the warehouse" in line else "") for line in told})


def without(schedule: dict[str, Any], acts: tuple[str, ...]) -> dict[str, Any]:
    """The schedule, these acts left out."""
    rounds = [
        ([act for act in doings if act[0] not in acts], hours, {**sync, "meanwhile": [edit for edit in sync["meanwhile"] if edit[1] not in acts]})
        for doings, hours, sync in schedule["rounds"]
    ]
    return {**schedule, "rounds": rounds, "last": [act for act in schedule["last"] if act[0] not in acts]}


def explore(strategy: st.SearchStrategy[dict[str, Any]], play: Play, number: int, seed_: int, out: Path, until: float) -> None:
    """Play schedules, going on after failures; tell each failure's first lines, and write its whole story and schedule to `out`."""
    failures, seconds, failed = Counter[str](), list[float](), list[int]()

    @seed(seed_)
    @settings(max_examples=number, phases=[Phase.generate], **SETTINGS)
    @given(strategy)
    def each(schedule: dict[str, Any]) -> None:
        if time.time() > until:
            return
        started = time.perf_counter()
        try:
            play(schedule, None)
        except Exception as error:
            failed.append(len(seconds) + 1)
            failures.update(kinds := kinds_of(error))
            print(f"--- {len(seconds) + 1}: {'; '.join(kinds)}\n    " + "\n    ".join(str(error).splitlines()[:4])[:900], flush=True)
            with out.open("a", encoding="utf-8") as file:
                file.write(f"=== seed {seed_}, schedule {len(seconds) + 1}: {'; '.join(kinds)}\n{error}\n\n{pformat(schedule, width=150)}\n\n")
        seconds.append(time.perf_counter() - started)

    each()
    print(f"\n{len(seconds)} schedules, {len(failed)} failed, {sum(seconds) / max(1, len(seconds)):.2f} seconds each")
    for kind, times in failures.most_common():
        print(f"{times:4}  {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crm", choices=["hubspot", "salesforce"])
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("failures.txt"))
    parser.add_argument("--without", default="", help="acts that are left out")
    parser.add_argument("--ignoring", default="", help="how differences begin that are known")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="play no further schedule after so long")
    parser.add_argument("--least", type=int, default=0, help="acts before each sync, at the least")
    parser.add_argument("--one", type=Path, help="a file with one schedule, a Python literal")
    told = parser.parse_args()
    acts, ignored = (tuple(filter(None, text.split(","))) for text in (told.without, told.ignoring))
    test = import_module(f"test_{told.crm}_schedules")
    ground = test.Ground()
    ground.ignored = ignored

    def play(schedule: dict[str, Any], _: Any) -> None:
        test.play(without(schedule, acts), ground)

    try:
        if told.one is None:
            explore(test.schedules(told.least), play, told.number, told.seed, told.out, time.time() + told.seconds)
        else:
            play(ast.literal_eval(told.one.read_text(encoding="utf-8")), None)
    except AssertionError as error:
        sys.exit(str(error))
    finally:
        ground.close()


if __name__ == "__main__":
    main()
