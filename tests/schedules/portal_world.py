"""A small HubSpot portal in which people and admins work, and a Plumbline that syncs it under all kinds of trouble.

Every act is told in a sentence: the sentences are what a failing schedule prints. Acts take small numbers, drawn by hypothesis, and
find by them the records that they are done to, so that any schedule can be played against whatever is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
from schedules import common
from schedules.common import DAY, HOUR, MINUTE, START, WORDS
from schedules.portal_truth import LIVE, differences

from connectors.simulator.faults import Faults
from connectors.simulator.http import CONTROL, serve
from connectors.simulator.hubspot import HubSpotPortal
from connectors.simulator.hubspot.errors import ApiError, rate_limited
from connectors.simulator.hubspot.records import Source

MOMENT = timedelta(milliseconds=7)
DAILY = 10_000  # calls of a day
# Records of a page and of a batch: five deals are two pages. The URL of a listing has room for all properties, unless it is `narrow`.
SMALL = {"PAGE": 3, "PAGE_WITH_HISTORY": 2, "SEARCH_PAGE": 3, "ASSOCIATION_BATCH": 4}
SIZES: dict[str, dict[str, int]] = {"small": SMALL, "narrow": {**SMALL, "URL_ROOM": 300}, "own": {}}
CONFIG = """
[warehouse]
path = "plumbline.duckdb"
landing = "landing"
threads = 1

[sources.inbound]
crm = "hubspot"
base_url = "{url}"
{credentials}
quota_share = {share}
overlap_minutes = {overlap}
api_version = "{version}"
"""
CREDENTIALS = {
    "token": 'access_token = "${HS_TOKEN}"',
    "oauth": 'client_id = "${HS_CLIENT_ID}"\nclient_secret = "${HS_CLIENT_SECRET}"\nrefresh_token = "${HS_REFRESH_TOKEN}"',
}
ENVIRONMENT = {
    "HS_TOKEN": "demo-token", "HS_CLIENT_ID": "plumbline-demo", "HS_CLIENT_SECRET": "demo-secret", "HS_REFRESH_TOKEN": "demo-refresh-token"
}  # fmt: skip
CURRENCIES = ["EUR", "USD", None]
ACTIVITIES = ("call", "email", "meeting", "task", "note", "task")


class Ground(common.Ground):
    """A server that shows the portal of the present schedule, and the process that starts syncs."""

    def __init__(self) -> None:
        super().__init__("hubspot", ENVIRONMENT)
        self.portal = self.app = None
        self.server = serve(self)  # type: ignore[arg-type]

    def renew(self) -> HubSpotPortal:
        """A new portal in place of the last one."""
        if self.portal is not None:
            self.portal.close()
        self.clock.set(START)
        self.meanwhile.clear()
        self.portal = HubSpotPortal(None, self.clock, Faults())
        self.app = self.portal.app()
        return self.portal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Counts what the portal is asked, and lets things happen between two requests."""
        if scope["type"] == "http" and not scope["path"].startswith(CONTROL):
            self.is_asked()
        await self.app(scope, receive, send)  # type: ignore[misc]

    def close(self) -> None:
        self.server.stop()
        self.nursery.close()
        if self.portal is not None:
            self.portal.close()


@dataclass
class World(common.World):
    """One schedule's portal and people, and the directory of the Plumbline beside it."""

    SOURCE = "inbound"
    REFUSED = ApiError  # archived by now, a stage of another pipeline, …
    BEFORE_AN_ACT = MOMENT  # HubSpot's history has one value of a property per millisecond

    version: str = "v3"
    credentials: str = "token"
    lag: float = 0  # seconds by which search is behind, always
    new_survivor: bool = False  # a merge makes a new record
    computed: bool = True  # what is calculated follows what is stored: no rate and no formula was changed

    def __post_init__(self) -> None:
        self.portal = self.ground.renew()
        self.clock, self.faults = self.ground.clock, self.portal.faults
        self.portal.limits.lift()  # of seconds: what a second allows is no matter of order
        self.portal.merge_makes_new_record = self.new_survivor
        teams = [("71", "North"), ("72", "South")]
        self.owners = [self.portal.add_owner(f"{n.lower()}@acme.example", n, "Vogel", team=teams[i % 2]) for i, n in enumerate(("Ada", "Bo", "Cy"))]
        self.portal.set_exchange_rate("USD", 0.9)
        self.portal.add_pipeline("renewals", "Renewals")
        for label, probability, closed in (("Due", 0.5, False), ("Agreed", 0.75, False), ("Renewed", 1.0, True), ("Churned", 0.0, True)):
            self.portal.add_stage("renewals", label, probability, closed)
        for c in "ABC":
            self.portal.create("companies", {"name": f"Company {c}", "industry": "ENERGY", "numberofemployees": 12})
        for n in range(3):
            self.portal.create("contacts", {"lastname": f"Person {n}", "email": f"p{n}@buyer.example"})
        self.portal.index_lag = self.lag

    # --- who and what is there ---

    def ids(self, object_type: str, where: str = LIVE) -> list[str]:
        found = [row[0] for row in self.portal.rows(f"select _id::varchar from object_{object_type} where {where} order by _id")]
        return [i for i in found if i != self.pulse.get(object_type)]

    def deals(self) -> list[str]:
        return self.ids("deals")

    def label(self, record: str | None) -> str:
        return f"…{record[-4:]}" if record else "none"

    def stages(self, pipeline: str) -> list[str]:
        """Stages that a deal may enter."""
        return [stage.id for stage in self.portal.pipelines.stages(pipeline) if not stage.archived]

    def stages_of(self, deal: str) -> list[str]:
        return self.stages(self.portal.rows("select pipeline from object_deals where _id = ?", [int(deal)])[0][0])

    def pipelines(self) -> list[str]:
        return [row[0] for row in self.portal.rows("select id from pipeline where archived_at is null order by display_order, id")]

    def index_is_behind(self) -> bool:
        """Whether something was written that some reader does not see yet."""
        now = self.clock.now()
        return any(self.portal.rows(f"select 1 from unseen_{kind} where _visible_at > ? limit 1", [now]) for kind in ("deals", "companies"))

    # --- acts: time ---

    def life_goes_on(self, hours: float) -> None:
        """Time goes by, and elsewhere in the portal somebody works: so the watermarks move on, past what was read."""
        self.clock.advance(timedelta(hours=hours))
        if hours < 1:
            return
        if not self.pulse:
            company = self.portal.create("companies", {"name": "Elsewhere"})
            deal = self.portal.create("deals", {"dealname": "Elsewhere", "closedate": START + 90 * DAY}, [("companies", company)])
            self.pulse = {"companies": company, "deals": deal}
            self.clock.advance(MOMENT)
        self.beats += 1
        self.portal.update("companies", self.pulse["companies"], {"name": f"Elsewhere {self.beats}"})
        self.portal.update("deals", self.pulse["deals"], {"hs_next_step": f"beat {self.beats}", "amount": self.beats})
        self.tell("elsewhere somebody worked")

    # --- acts: deals ---

    def create(self, a: int, b: int) -> None:
        """One to four deals, all with one stamp."""
        companies, made = self.ids("companies"), []
        for n in range(1 + a % 4):
            self.names += 1
            pipeline = self.pipelines()[(a + n) % 5 % len(self.pipelines())]
            stages = self.stages(pipeline)
            values = {
                "dealname": f"Deal {self.names}", "pipeline": pipeline, "dealstage": stages[(b + n) % len(stages)],
                "closedate": START + (b * 7 % 90) * DAY + (a % 24) * HOUR, "amount": [None, 0, 1200, "99000.50"][(a + b + n) % 4],
                "deal_currency_code": CURRENCIES[(a + n) % 3], "hubspot_owner_id": [*self.owners, None][b % 4],
                "hs_next_step": WORDS[b % len(WORDS)], "description": WORDS[(a + b) % len(WORDS)],
                "hs_manual_forecast_category": [None, "COMMIT", "BEST_CASE"][a % 3],
            }  # fmt: skip
            attached = [("companies", companies[(a + n) % len(companies)])] if companies and b % 3 else []
            if self.faults.armed():  # the deal is seen later: nobody can attach anything to it now
                attached = []
            made.append(self.portal.create("deals", {key: value for key, value in values.items() if value not in (None, "")}, attached))
        self.tell(f"deals were created: {', '.join(map(self.label, made))}")

    def edit(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self._update(deals[a % len(deals)], self.change(deals[a % len(deals)], b))

    def change(self, deal: str, b: int) -> dict[str, Any]:
        pick, stages = b // 9, self.stages_of(deal)
        return [
            {"dealstage": stages[pick % len(stages)]},
            {"amount": [None, 0, 1, 5000, "99000.5", "12345678.254"][pick % 6]},
            {"closedate": self.clock.now() + (pick % 60 - 10) * DAY},
            {"hs_next_step": WORDS[pick % len(WORDS)]},
            {"hubspot_owner_id": [*self.owners, None][pick % 4]},
            {"hs_manual_forecast_category": [None, "OMIT", "PIPELINE", "BEST_CASE", "MOST_LIKELY", "COMMIT", "CLOSED"][pick % 7]},
            {"deal_currency_code": ["EUR", "USD"][pick % 2], "hs_priority": ["low", "high", None][pick % 3]},
            {"closed_lost_reason": WORDS[pick % len(WORDS)], "dealtype": ["newbusiness", "existingbusiness", None][pick % 3]},
            {"description": WORDS[pick % len(WORDS)], "dealname": f"Deal {WORDS[pick % len(WORDS)]}"},
        ][b % 9]  # fmt: skip

    def _update(self, deal: str, values: dict[str, Any], *, user: int | None = 9_560_013) -> None:
        self.portal.update("deals", deal, values, user_id=user)
        self.tell(f"deal {self.label(deal)} was edited: {values}")

    def edit_many(self, a: int, b: int) -> None:
        """A list view edited in one go: all with one stamp."""
        deals = self.deals()
        for deal in deals:
            self.portal.update("deals", deal, {"hs_next_step": f"by {b}"})
        self.tell(f"{len(deals)} deals got the next step 'by {b}' at one instant")

    def back_and_forth(self, a: int, b: int) -> None:
        """Several moves of one deal within a second."""
        deals = self.deals()
        if deals:
            deal = deals[a % len(deals)]
            stages = self.stages_of(deal)
            for stage in (stages[b % len(stages)], stages[(b + 1) % len(stages)], stages[b % len(stages)]):
                self.clock.advance(MOMENT)
                self._update(deal, {"dealstage": stage})

    def move_pipeline(self, a: int, b: int) -> None:
        deals, pipelines = self.deals(), self.pipelines()
        if deals:
            pipeline = pipelines[b % len(pipelines)]
            stages = self.stages(pipeline)
            self._update(deals[a % len(deals)], {"pipeline": pipeline, "dealstage": stages[b % len(stages)]})

    def line_items(self, a: int, b: int) -> None:
        """Products are attached or taken away: HubSpot counts them, and writes the number into the deal."""
        deals = self.deals()
        if deals:
            deal = deals[a % len(deals)]
            self.portal.records.write(
                self.portal.catalogue.types["deals"], [(int(deal), {"hs_num_of_associated_line_items": str(b % 3)})], Source("CALCULATED")
            )
            self.tell(f"deal {self.label(deal)} has {b % 3} line items now")

    def archive(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self.portal.archive("deals", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} was archived")

    def restore(self, a: int, b: int) -> None:
        deals = self.ids("deals", "_archived_at is not null")
        if deals:
            self.portal.restore("deals", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} was restored")

    def purge(self, a: int, b: int) -> None:
        """Privacy: of a live or an archived deal nothing is left."""
        deals = self.ids("deals", "_merged_into is null")
        if deals:
            self.portal.purge("deals", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} was deleted for good")

    def empty_bin(self, a: int, b: int) -> None:
        gone = self.portal.empty_bin(days=[0, 5][b % 2])
        self.tell(f"{gone} archived records are gone for good")

    def merge(self, a: int, b: int) -> None:
        self._merge("deals", a, b)

    def _merge(self, object_type: str, a: int, b: int) -> None:
        there = self.ids(object_type)
        if len(there) > 1:
            primary, other = there[a % len(there)], there[(a + 1 + b % (len(there) - 1)) % len(there)]
            survivor = self.portal.merge(object_type, primary, other)
            self.tell(f"of {object_type} {self.label(other)} was merged into {self.label(primary)}, which is {self.label(survivor)} now")

    def activity(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            at = self.clock.now() + (b % 9 - 4) * DAY + 30 * MINUTE
            kind = ACTIVITIES[a % 6]
            deal = deals[b % len(deals)]
            self.portal.log_activity(deal, kind, at, subject="Talk", is_open=kind == "task" and b % 3 > 0)
            self.tell(f"a {kind} of {at:%d %b %H:%M} was logged on deal {self.label(deal)}")

    def finish_activity(self, a: int, b: int) -> None:
        tasks = self.portal.rows(f"""select e.id::varchar from engagement e join object_deals d on d._id = e.deal_id and {LIVE}
                                     where e.is_open order by e.id""")
        if tasks:
            self.portal.complete_activity(tasks[a % len(tasks)][0])
            self.tell("a task was finished")

    # --- acts: what some readers see later ---

    def late(self, a: int, b: int) -> None:
        """A write that everybody sees later, by less than the overlap."""
        self._late(timedelta(minutes=self.overlap * [0.1, 0.5, 0.9, 0.98][a % 4]), a // 4, b)

    def very_late(self, a: int, b: int) -> None:
        """The same, later than the overlap reaches back."""
        self._late(timedelta(minutes=self.overlap) + [MINUTE, HOUR, 5 * HOUR][a % 3], a // 3, b)
        self.sweep_due.append("a write that was seen later than the overlap")

    def _late(self, by: timedelta, a: int, b: int) -> None:
        self.faults.arm("late_commit", seconds=by.total_seconds(), times=1)
        self.commits.append(self.clock.now() + by)
        self.tell(f"the next write is stamped now and seen {by} later:")
        try:
            self._write_something(a, b)
        finally:
            self.faults.clear()  # where there was nothing to write

    def lagging(self, a: int, b: int) -> None:
        """A write that search finds later, by less than the overlap; whoever asks for the record by its id has it at once."""
        self._lagging(timedelta(minutes=self.overlap * [0.1, 0.5, 0.9, 0.98][a % 4]), a // 4, b)

    def far_behind(self, a: int, b: int) -> None:
        """The same, later than the overlap reaches back."""
        self._lagging(timedelta(minutes=self.overlap) + [MINUTE, HOUR, 5 * HOUR][a % 3], a // 3, b)
        self.sweep_due.append("a write that was indexed later than the overlap")

    def _lagging(self, by: timedelta, a: int, b: int) -> None:
        self.portal.index_lag = by.total_seconds()
        self.commits.append(self.clock.now() + by)
        self.tell(f"search shows the next write {by} later:")
        try:
            self._write_something(a, b)
        finally:
            self.portal.index_lag = self.lag

    def _write_something(self, a: int, b: int) -> None:
        deals = self.deals()
        if not deals or b % 4 == 0:
            self.create(4 * a, b)
        elif b % 4 == 1:
            self.archive(a, b)
        else:
            self._update(deals[a % len(deals)], self.change(deals[a % len(deals)], b // 4 % 3 + 9 * b))

    # --- acts: companies, contacts, owners ---

    def new_company(self, a: int, b: int) -> None:
        self.portal.create("companies", {"name": f"Newcomer {b}", "industry": "RETAIL"})
        self.tell(f"a company Newcomer {b} was made")

    def rename_company(self, a: int, b: int) -> None:
        there = self.ids("companies")
        if there:
            values = {"name": f"Company {b}", "industry": ["ENERGY", None][b % 2], "numberofemployees": b}
            self.portal.update("companies", there[a % len(there)], values)
            self.tell(f"company {self.label(there[a % len(there)])} is called Company {b} now")

    def merge_companies(self, a: int, b: int) -> None:
        self._merge("companies", a, b)

    def remove_company(self, a: int, b: int) -> None:
        self._remove("companies", a, b)

    def remove_contact(self, a: int, b: int) -> None:
        self._remove("contacts", a, b)

    def _remove(self, object_type: str, a: int, b: int) -> None:
        """Into the bin, out of it, or for good."""
        way = ["archive", "restore", "purge"][b % 3]
        there = self.ids(object_type, {"archive": LIVE, "restore": "_archived_at is not null", "purge": "_merged_into is null"}[way])
        if there:
            getattr(self.portal, way)(object_type, there[a % len(there)])
            self.tell(f"{way} of {object_type} {self.label(there[a % len(there)])}")

    def merge_contacts(self, a: int, b: int) -> None:
        self._merge("contacts", a, b)

    def attach_contact(self, a: int, b: int) -> None:
        self._attach("contacts", a, b, None)

    def label_contact(self, a: int, b: int) -> None:
        """A contact is attached with a word for what it is in the deal."""
        self._attach("contacts", a, b, ["Decision maker", "Champion"][b % 2])

    def attach_company(self, a: int, b: int) -> None:
        self._attach("companies", a, b, [None, "Primary", "Partner"][b % 3])

    def _attach(self, object_type: str, a: int, b: int, label: str | None) -> None:
        deals, others = self.deals(), self.ids(object_type)
        if deals and others:
            deal, other = deals[a % len(deals)], others[b // 3 % len(others)]
            self.portal.associate("deals", deal, object_type, other, label)
            self.tell(f"of {object_type} {self.label(other)} was attached to deal {self.label(deal)}{f' as {label}' if label else ''}")

    def detach(self, a: int, b: int) -> None:
        """A contact or a company is taken off a deal."""
        there = self.portal.rows("""select distinct from_id::varchar, to_type, to_id::varchar from association
                                    where from_type = 'deals' and to_type in ('contacts', 'companies') and not hidden order by all""")
        there = [row for row in there if row[0] != self.pulse.get("deals")]
        if there:
            deal, object_type, other = there[a % len(there)]
            self.portal.dissociate("deals", deal, object_type, other)
            self.tell(f"of {object_type} {self.label(other)} was taken off deal {self.label(deal)}")

    def person_changes(self, a: int, b: int) -> None:
        """An owner leaves or comes back, or somebody new starts."""
        owner = self.owners[a % 3]
        if b % 3 == 0:
            self.portal.deactivate_owner(owner)
        elif b % 3 == 1:
            self.portal.reactivate_owner(owner)
        else:
            self.names += 1
            owner = self.portal.add_owner(f"n{self.names}@acme.example", f"Newhire {self.names}", "Falk")
        self.tell(f"owner {self.label(owner)} {['left', 'came back', 'started'][b % 3]}")

    # --- acts: admins ---

    def add_property(self, a: int, b: int) -> None:
        self.names += 1
        name = f"extra_{self.names}"
        kind, field_type, value = [("string", "text", "new"), ("number", "number", 7.5), ("bool", "booleancheckbox", True),
                                   ("date", "date", "2026-05-01"), ("number", "calculation_equation", None)][b % 5]  # fmt: skip
        self.portal.add_property("deals", name, kind, field_type, f"Extra {self.names}", calculated="amount / 3" if value is None else None)
        self.computed = self.computed and value is not None  # a real portal stamps the deals for which it calculates a new one; this one does not
        self.tell(f"property {name} ({kind}{', calculated' if value is None else ''}) was added")
        deals = self.deals()
        if deals and value is not None:
            self._update(deals[a % len(deals)], {name: value})

    def _custom(self) -> list[str]:
        return [name for name in self.portal.catalogue.types["deals"].properties if name.startswith("extra_")]

    def rename_property(self, a: int, b: int) -> None:
        names = ["hs_next_step", *self._custom()]
        self.portal.rename_property("deals", names[a % len(names)], f"Label {b}")
        self.tell(f"property {names[a % len(names)]} is called 'Label {b}' now")

    def remove_property(self, a: int, b: int) -> None:
        names = self._custom()
        if names:
            self.portal.remove_property("deals", names[a % len(names)])
            self.tell(f"property {names[a % len(names)]} was removed")

    def change_formula(self, a: int, b: int) -> None:
        self.portal.change_formula("deals", "weighted_amount", ["amount / 2", "amount_in_home_currency * hs_deal_stage_probability"][b % 2])
        self.computed = False
        self.tell("the formula of weighted_amount is another now; no stamp moved")

    def change_rate(self, a: int, b: int) -> None:
        self.portal.set_exchange_rate("USD", 0.5 + b / 100)
        self.computed = False  # payloads keep what was calculated by the former rate; what Plumbline converts must follow
        self.tell(f"one USD is {0.5 + b / 100:.2f} EUR now; no stamp moved")

    def add_stage(self, a: int, b: int) -> None:
        pipelines = self.pipelines()
        pipeline = pipelines[a % len(pipelines)]
        self.names += 1
        stage = self.portal.add_stage(pipeline, f"Gate {self.names}", b % 90 / 100, False, display_order=b % 3)
        self.tell(f"stage {stage} 'Gate {self.names}' was added to pipeline {pipeline}")
        deals = [d for d in self.deals() if self.portal.get("deals", d, ["pipeline"]) == {"pipeline": pipeline}]
        if deals and a % 3:
            self._update(deals[a % len(deals)], {"dealstage": stage})

    def _stage(self, a: int) -> tuple[str, str]:
        stages = self.portal.pipelines.stages()
        return stages[a % len(stages)].pipeline, stages[a % len(stages)].id

    def rename_stage(self, a: int, b: int) -> None:
        pipeline, stage = self._stage(a)
        self.portal.rename_stage(pipeline, stage, f"Label {b}")
        self.tell(f"stage {stage} is called 'Label {b}' now")

    def change_stage(self, a: int, b: int) -> None:
        """A stage gets another probability, or counts as closed or open from now on; its deals' stamps move."""
        pipeline, stage = self._stage(a)
        change: dict[str, Any] = [{"probability": 0.33}, {"probability": 1.0, "is_closed": True}, {"probability": 0.0, "is_closed": True},
                                  {"probability": b / 100, "is_closed": False}][b % 4]  # fmt: skip
        self.portal.change_stage(pipeline, stage, **change)
        self.tell(f"stage {stage}: {change}")

    def archive_stage(self, a: int, b: int) -> None:
        """HubSpot lets nobody take a stage away in which deals are."""
        pipeline, stage = self._stage(a)
        used = self.portal.rows(f"select 1 from object_deals where dealstage = ? and {LIVE} limit 1", [stage])
        others = [s for s in self.portal.pipelines.stages(pipeline) if s.id != stage and not s.archived and not s.is_closed]
        if used or not others:
            self.tell(f"stage {stage} could not be taken out of use")
        else:
            self.portal.archive_stage(pipeline, stage)
            self.tell(f"stage {stage} was taken out of use")

    def add_pipeline(self, a: int, b: int) -> None:
        self.names += 1
        pipeline = f"p{self.names}"
        self.portal.add_pipeline(pipeline, f"Pipeline {self.names}")
        self.portal.add_stage(pipeline, "First", 0.1)
        self.portal.add_stage(pipeline, "Won", 1.0, True)
        self.tell(f"pipeline {pipeline} was added")
        deals = self.deals()
        if deals and a % 2:
            self._update(deals[a % len(deals)], {"pipeline": pipeline, "dealstage": self.stages(pipeline)[0]})

    def rename_pipeline(self, a: int, b: int) -> None:
        pipelines = self.pipelines()
        self.names += 1
        self.portal.rename_pipeline(pipelines[a % len(pipelines)], f"Pipeline {self.names}")
        self.tell(f"pipeline {pipelines[a % len(pipelines)]} is called 'Pipeline {self.names}' now")

    def remove_pipeline(self, a: int, b: int) -> None:
        """HubSpot lets nobody take a pipeline away in which deals are."""
        used = {row[0] for row in self.portal.rows(f"select distinct pipeline from object_deals where {LIVE}")} | {"default"}
        free = [pipeline for pipeline in self.pipelines() if pipeline not in used]
        if free:
            self.portal.store.run("update pipeline set archived_at = ? where id = ?", [self.clock.now(), free[a % len(free)]])
            self.tell(f"pipeline {free[a % len(free)]} was removed")

    # --- trouble ---

    def arm(self, kind: str, path: str | None, after: int, times: int) -> None:
        """Let the portal answer wrongly when it is asked for the time after `after` requests that match `path`."""
        where: dict[str, Any] = {"path": path, "after": after}
        if kind == "expire":
            self.faults.arm("expire_tokens", **where)
        elif kind == "slow":
            self.faults.arm("slow", seconds=0.02, times=times, **where)
        elif kind == "drop":
            self.faults.arm("drop", applied=bool(after % 2), times=times, **where)
        elif kind == "truncate":
            self.faults.arm("truncate", times=times, **where)
        elif kind.startswith("429"):
            policy = {"429": "TEN_SECONDLY_ROLLING", "429 second": "SECONDLY", "429 day": "DAILY"}[kind]
            headers = {"Retry-After": "0"} if after % 2 else None
            self.faults.arm("status", status=429, body=rate_limited(policy).body(), headers=headers, times=times, **where)
        else:
            self.faults.arm("status", status=int(kind), times=times, **where)
        self.tell(f"trouble is ahead: {kind}, {times} times, after {after} requests{' to ' + path if path else ''}")

    # --- syncs ---

    def config(self, share: float, **said: Any) -> str:
        told = {"url": self.ground.server.url, "credentials": CREDENTIALS[self.credentials], "overlap": self.overlap, "version": self.version}
        return CONFIG.format(share=share, **told, **said)

    def new_day(self, limit: int | None, left: int | None) -> None:
        limits = self.portal.limits
        limits.daily = limit or DAILY
        limits.used_today = 0 if left is None else DAILY - left
        limits._day = self.clock.now().astimezone(ZoneInfo("Europe/Berlin")).date().isoformat()  # else the first call would begin a new day

    def sync(
        self, *, flow: str = "sync", full: bool = False, quota: tuple[str, int] | None = None, kill: dict[str, Any] | None = None, streams: int = 1,
        sizes: str = "small",
    ) -> dict[str, Any]:  # fmt: skip
        """See World.run. sizes: of pages, a name in SIZES."""
        return self.run(flow, f"pages {sizes}", full=full, quota=quota, kill=kill, config={}, streams=streams, sizes=SIZES[sizes])

    def differences(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        return differences(self.portal, con, now=self.clock.now(), source=self.SOURCE, computed=self.computed or self.listed)


# What may happen between two syncs.
ACTS = (
    "wait", "create", "edit", "edit", "edit_many", "back_and_forth", "move_pipeline", "line_items", "archive", "restore", "purge", "empty_bin",
    "merge", "activity", "finish_activity", "late", "very_late", "lagging", "far_behind", "new_company", "rename_company", "merge_companies",
    "remove_company", "remove_contact", "merge_contacts", "attach_contact", "label_contact", "attach_company", "detach", "person_changes",
    "add_property", "rename_property", "remove_property", "change_formula", "change_rate", "add_stage", "rename_stage", "change_stage",
    "archive_stage", "add_pipeline", "rename_pipeline", "remove_pipeline",
)  # fmt: skip
# And while one reads.
MEANWHILE = (
    "edit", "create", "archive", "restore", "purge", "merge", "attach_contact", "attach_company", "detach", "add_property", "remove_property",
    "rename_company", "move_pipeline", "expire",
)  # fmt: skip
