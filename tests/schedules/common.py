"""What the worlds of both CRMs have in common: their story, their syncs, and what must hold however a sync ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
from schedules.kept import unchanging
from schedules.nursery import Nursery

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults

START = datetime(2026, 3, 9, 8, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WORDS = ["", "Call back", 'Łódź "north",\r\nline two', '","2026-01-01T00:00:00.000Z","', '{"id":"98"}', "ß" * 40, "\\N", "#N/A", "a;b", " "]


class Ground:
    """What schedules are played on, one after the other: a clock, a server, and the process that starts syncs.

    asked: calls of the present run, as the CRM counts them. meanwhile: what happens before the n-th call is answered. ignored: how
    differences begin that are known; only who looks for others sets it.
    """

    def __init__(self, crm: str, environment: dict[str, str]) -> None:
        self.clock = SimClock(START)
        self.clock.freeze()
        self.nursery = Nursery(environment, crm)
        self.asked = 0
        self.meanwhile: dict[int, list[Callable[[], None]]] = {}
        self.ignored: tuple[str, ...] = ()

    def is_asked(self) -> None:
        """Count a call that is about to be answered, and let happen what is to happen before it is."""
        self.asked += 1
        for happens in self.meanwhile.pop(self.asked, ()):
            happens()


@dataclass
class World:
    """One schedule's CRM and people, and the directory of the Plumbline beside it."""

    SOURCE: ClassVar[str]
    REFUSED: ClassVar[type[Exception]]  # what the CRM says to an act that it does not allow
    BEFORE_AN_ACT: ClassVar[timedelta] = timedelta(0)

    ground: Any
    directory: Path
    overlap: int = 60  # minutes
    told: list[str] = field(default_factory=list)
    sweep_due: list[str] = field(default_factory=list)  # what happened that only a comparison of all ids can see
    commits: list[datetime] = field(default_factory=list)  # when writes that are stamped become visible
    watermarks: dict[str, datetime] = field(default_factory=dict)
    pulse: dict[str, str] = field(default_factory=dict)  # records of a deal that no act touches, per object
    beats: int = 0
    runs: int = 0
    names: int = 0
    listed: bool = False  # the last sync read everything anew
    clock: SimClock = field(init=False)
    faults: Faults = field(init=False)

    # --- telling ---

    def tell(self, sentence: str) -> None:
        self.told.append(f"{self.clock.now():%d %b %H:%M:%S.%f}"[:-3] + f"  {sentence}")

    def story(self) -> str:
        return "\n".join(["", *self.told])

    # --- acts ---

    def act(self, name: str, a: int, b: int) -> None:
        self.clock.advance(self.BEFORE_AN_ACT)
        try:
            getattr(self, name)(a, b)
        except self.REFUSED as error:
            self.tell(f"{name} was refused: {error}")

    def wait(self, a: int, b: int) -> None:
        """Time goes by."""
        by = [timedelta(seconds=1), 5 * MINUTE, 40 * MINUTE, 3 * HOUR, DAY, 16 * DAY][a % 6]
        self.clock.advance(by)
        self.tell(f"{by} went by")

    def plan_meanwhile(self, number: int, name: str, a: int, b: int) -> None:
        """Let something happen in the CRM just before a sync's n-th call is answered."""

        def happens() -> None:
            self.clock.advance(timedelta(seconds=1))
            self.told.append(f"    before call {number} was answered:")
            if name == "expire":
                self.faults.arm("expire_tokens")
                self.tell("all tokens expired")
            else:
                self.act(name, a, b)

        self.ground.meanwhile.setdefault(number, []).append(happens)

    # --- syncs ---

    def config(self, share: float, **said: Any) -> str:
        """What stands in plumbline.toml."""
        raise NotImplementedError

    def new_day(self, limit: int | None, left: int | None) -> None:
        """The CRM counts calls from none again. limit: calls of a day, None: plenty; left: what others have left of them."""
        raise NotImplementedError

    def run(
        self, flow: str, doing: str, *, full: bool, quota: tuple[str, int] | None, kill: dict[str, Any] | None, config: dict[str, Any], **order: Any
    ) -> dict[str, Any]:  # fmt: skip
        """One run of Plumbline, as the CRM is at this instant. Checks what must hold however it ends. Returns the nursery's answer.

        quota: ("share", n): quota_share of the day's calls is n; ("left", n): others have left n calls of the day.
        """
        way, calls = quota or ("", 0)
        troubled = bool(self.faults.armed())
        self.new_day(2 * calls if way == "share" else None, calls if way == "left" else None)
        path = self.directory / "plumbline.toml"
        path.write_text(self.config(0.5 if way == "share" else 1.0, **config), encoding="utf-8")
        self.runs += 1
        self.ground.asked = 0
        self.tell(f"plumbline {flow}{' --full' if full else ''} ({doing}, {f'at most {calls} calls' if quota else 'calls enough'}) begins")
        answer: dict[str, Any] = self.ground.nursery.run(
            config=str(path), now=self.clock.now().isoformat(), flow=flow, full=full, kill=kill, name=f"run {self.runs}", **order
        )
        ended = answer["status"] + (f" at {answer['killed_at']}" if answer["status"] == "killed" else "")
        said = "; ".join(text.splitlines()[0] for text in answer.get("errors", {}).values())
        self.tell(f"    it ends: {ended} after {self.ground.asked} calls{': ' + said if said else ''}")
        assert answer["status"] != "defect", f"{self.story()}\n{answer.get('trace')}"
        if sources := (answer.get("document") or {}).get("sources"):
            counted = sources[0]["calls"]
            assert counted == self.ground.asked, f"{counted} calls are on record, the CRM was asked {self.ground.asked} times{self.story()}"
        # What the CRM leaves unanswered it does not count against its day; against our share everything counts.
        if way == "share" or (way == "left" and not troubled):
            assert self.ground.asked <= calls, f"{self.ground.asked} calls where {calls} are allowed{self.story()}"
        self.check_watermarks()
        self.listed = full and flow == "sync" and answer["status"] == "done"
        return answer

    def a_second_later(self) -> None:
        """No sync is over within the second in which it began to read."""
        self.clock.advance(timedelta(seconds=1))

    def reading(self) -> duckdb.DuckDBPyConnection:
        con = duckdb.connect(str(self.directory / "plumbline.duckdb"), read_only=True, config={"threads": 1})
        con.execute("set timezone = 'UTC'")
        return con

    def check_watermarks(self) -> None:
        """They never fall back, and never pass the CRM's clock."""
        if not (self.directory / "plumbline.duckdb").exists():
            return
        with self.reading() as con:
            if not con.execute("select 1 from duckdb_tables() where table_name = 'watermark'").fetchall():
                return
            marks = dict(con.execute("select object, watermark from ops.watermark where source = ?", [self.SOURCE]).fetchall())
            assert con.execute("select count(*) = count(distinct object) from ops.watermark").fetchone() == (True,), self.story()
        for name, mark in marks.items():
            assert mark <= self.clock.now(), f"the watermark of {name} is in the future: {mark}{self.story()}"
        for name, mark in self.watermarks.items():
            assert name in marks and marks[name] >= mark, f"the watermark of {name} fell from {mark} to {marks.get(name)}{self.story()}"
        self.watermarks = marks

    def differences(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        raise NotImplementedError

    def compare(self, when: str) -> None:
        """Raises AssertionError with every difference between the CRM and the warehouse."""
        with self.reading() as con:
            found = self.differences(con)
        found = [sentence for sentence in found if not sentence.startswith(self.ground.ignored)]
        assert not found, f"{len(found)} differences {when}:\n" + "\n".join(found[:25]) + self.story()

    def still(self) -> Any:
        with self.reading() as con:
            return unchanging(con)
