"""Forty days of an org whose true state was noted all along: what the warehouse says that its deals were, before and after the installation."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg
from flows import sync
from flows.run import open_run
from flows.settings import load_settings

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SYNCS = (10, 25, 40)  # days
CONFIG = """
[sources.sales]
crm = "salesforce"
instance_url = "{url}"
client_id = "plumbline-demo"
client_secret = "demo-secret"
"""
STAGES = ["Prospecting", "Qualification", "Needs Analysis", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"]
CATEGORIES = {"Pipeline": "pipeline", "Best Case": "best_case", "Commit": "commit", "Closed": "closed", "Omitted": "omitted"}
ATTRIBUTES = (
    "crm_stage", "is_closed", "is_won", "amount", "currency", "close_date", "owner_id", "probability", "forecast_category", "pipeline",
    "next_step", "is_deleted",
)  # fmt: skip
TRUTH = """
    select o."Id", o."StageName", o."IsClosed", o."IsWon", o."Amount", o."CurrencyIsoCode", o."CloseDate", o."OwnerId", o."Probability" / 100,
           o."ForecastCategoryName", coalesce(r."Name", 'default'), o."NextStep", o."IsDeleted"
    from "Opportunity" o left join "RecordType" r on r."Id" = o."RecordTypeId"
"""


class Office:
    """The org, what people do to it, and what it was at every instant at which somebody did something."""

    def __init__(self, seed):
        self.random, self.clock = random.Random(seed), SimClock(START)
        self.clock.freeze()
        self.org = SalesforceOrg(None, self.clock, Faults())
        # The org does not keep the history of next steps; that of record types and currencies it keeps.
        self.org.tracked_fields = [f for f in self.org.tracked_fields if f != "NextStep"] + ["RecordTypeId", "CurrencyIsoCode"]
        self.sellers = [row[0] for row in self.org.rows('select "Id" from "User" order by "Id"')]
        self.types = [row[0] for row in self.org.rows('select "Id" from "RecordType"')] + [self.org.add_record_type("Renewal")]
        self.account = self.org.create("Account", {"Name": "Nordwind"})
        self.deals, self.restored, self.past = [], set(), []

    def make(self, count):
        rows = [
            {"Name": f"Deal {n}", "AccountId": self.account, "RecordTypeId": self.random.choice(self.types),
            "OwnerId": self.random.choice(self.sellers),
             "StageName": self.random.choice(STAGES), "CloseDate": self.day(), "Amount": self.money(), "NextStep": self.random.choice([None, "Call"])}
            for n in range(count)
        ]  # fmt: skip
        self.deals += [outcome.id for outcome in self.org.create_many("Opportunity", rows)]

    def day(self):
        return (date(2026, 3, 1) + timedelta(days=self.random.randrange(300))).isoformat()

    def money(self):
        return self.random.choice([None, 0, self.random.randrange(10_000_000) / 100])

    def work(self, deals):
        """Somebody does one thing to each of these deals."""
        gone = dict(self.org.rows('select "Id", "IsDeleted" from "Opportunity"'))
        there = [deal for deal in deals if not gone[deal]]
        for deal in deals:
            if gone[deal] and self.random.random() < 0.3:
                self.org.undelete("Opportunity", deal)
                self.restored.add(deal)
        if there and self.random.random() < 0.1:
            self.org.delete("Opportunity", there.pop())
        if there:
            outcomes = self.org.update_many("Opportunity", [{"Id": deal, **self.change()} for deal in there])
            assert not any(outcome.errors for outcome in outcomes)

    def change(self):
        pick = self.random.choice
        return pick([
            {"StageName": pick(STAGES)}, {"StageName": pick(STAGES), "CloseDate": self.day()}, {"Amount": self.money()}, {"CloseDate": self.day()},
            {"OwnerId": pick(self.sellers)}, {"NextStep": pick([None, "Call Karin", "Send the quote"])}, {"Probability": pick([5, 33, 80])},
            {"ForecastCategoryName": pick(["Best Case", "Commit"])}, {"RecordTypeId": pick(self.types)},
            {"Amount": self.money(), "CurrencyIsoCode": pick(["EUR", "USD"]), "StageName": pick(STAGES)},
        ])  # fmt: skip

    def note(self):
        self.past.append((self.clock.now(), {row[0]: row[1:] for row in self.org.rows(TRUTH)}))

    def run(self, days):
        """Work from now on. Some of it falls into the same second, some is weeks apart for a deal."""
        until = self.clock.now() + timedelta(days=days)
        while True:
            step = timedelta(seconds=self.random.randrange(1, 120_000))
            if self.clock.now() + step >= until:
                self.clock.set(until)
                return
            self.clock.advance(step)
            if self.random.random() < 0.2:
                self.make(2)
            few = self.random.sample(self.deals, 9)
            self.work(few)
            if self.random.random() < 0.3:
                self.work(few)  # within the same second
            self.note()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The office after forty days, a warehouse that was there from the tenth on, and one that came on the last."""
    office = Office(seed=7)
    with serve(office.org.app()) as server:
        early, late = (settings(tmp_path_factory.mktemp(name), server.url) for name in ("early", "late"))
        office.make(40)
        office.note()
        for before, day in zip((0, *SYNCS), SYNCS, strict=False):
            office.run(day - before)
            synchronise(early, office.clock.now())
        synchronise(late, office.clock.now())
        yield office, early, late
    office.org.close()


def settings(directory, url):
    file = directory / "plumbline.toml"
    file.write_text(CONFIG.format(url=url), encoding="utf-8")
    return load_settings(file)


def synchronise(configuration, now):
    with open_run("sync", configuration, now) as run:
        assert sync.sync(run).errors == {}


def warehouse(configuration):
    con = duckdb.connect(str(configuration.warehouse.path), read_only=True)
    con.execute("set timezone = 'UTC'")
    return con


def as_of(con, instant):
    rows = con.execute(
        f"""select split_part(opportunity_key, ':', 2), {", ".join(ATTRIBUTES)} from core.opportunity_version
            where valid_from <= $1 and (valid_to is null or valid_to > $1)""",
        [instant],
    ).fetchall()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def canonical(row):
    stage, closed, won, amount, currency, close_date, owner, probability, category, pipeline, step, deleted = row
    money = None if amount is None else Decimal(amount).quantize(Decimal("0.01"))
    share = None if probability is None else Decimal(str(probability)).quantize(Decimal("0.000001"))
    return (stage, closed, won, money, currency, close_date, owner, share, CATEGORIES[category], pipeline, step, deleted)


def differences(con, past):
    """(attribute, deal, instant) wherever the warehouse says something else than what was."""
    found = []
    for instant, deals in past:
        ours = as_of(con, instant)
        assert set(ours) == set(deals), instant
        for key, row in deals.items():
            found += [(name, key, instant) for name, is_, was in zip(ATTRIBUTES, ours[key], canonical(row), strict=True) if is_ != was]
    return found


@pytest.mark.parametrize("since", ["the tenth day", "the last day"])
def test_the_past_is_as_it_was(story, since):
    """Deal by deal at each instant. Next steps are not tracked, and nothing tells that a deal was in the recycle bin for a while."""
    office, early, late = story
    with warehouse(early if since == "the tenth day" else late) as con:
        wrong = differences(con, office.past)
    assert len(office.past) > 40 and len(office.deals) > 50
    assert {name for name, _, _ in wrong} == {"next_step", "is_deleted"}
    assert {key for name, key, _ in wrong if name == "is_deleted"} <= office.restored


def test_what_syncs_saw_is_kept_though_the_crm_keeps_no_history_of_it(story):
    """The next steps of the deals that the warehouse saw on the tenth and on the twenty-fifth day are those of that day."""
    office, early, _ = story
    with warehouse(early) as con:
        for day in SYNCS:
            instant = START + timedelta(days=day)
            last = max(past for past, _ in office.past if past <= instant)
            assert differences(con, [(instant, dict(office.past)[last])]) == []


def test_versions_follow_each_other_and_end_with_the_deal(story):
    office, early, late = story
    for configuration in (early, late):
        with warehouse(configuration) as con:
            broken = con.execute("""
                select * from (
                    select *, lead(valid_from) over deal as next, lag(valid_from) over deal is null as is_first
                    from core.opportunity_version window deal as (partition by opportunity_key order by valid_from)
                ) v
                join core.opportunity o using (opportunity_key)
                where valid_to is distinct from next or valid_to <= valid_from or (is_first and valid_from <> o.created_at)
            """).fetchall()
            assert broken == []
            columns = "opportunity_key, stage, amount_home, " + ", ".join(ATTRIBUTES)
            present = con.execute(f"select {columns} from core.opportunity_version where valid_to is null order by 1").fetchall()
            assert present == con.execute(f"select {columns} from core.opportunity order by 1").fetchall()
            assert len(present) == len(office.deals)


def test_a_change_is_dated_when_it_was_made_not_when_it_was_seen(story):
    """Both warehouses tell the same of what the CRM's history tells, to the instant, whenever they were there."""
    _, early, late = story
    told = """select opportunity_key, valid_from, crm_stage, amount, close_date, owner_id, probability, forecast_category, pipeline
              from core.opportunity_version where origin = 'crm_history' order by all"""
    events = 'select opportunity_key, "at", kind, from_crm_stage, to_crm_stage from core.stage_event order by all'
    with warehouse(early) as ours, warehouse(late) as theirs:
        assert set(theirs.execute(told).fetchall()) <= set(ours.execute(told).fetchall())
        assert ours.execute(events).fetchall() == theirs.execute(events).fetchall()
