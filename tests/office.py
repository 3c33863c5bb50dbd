"""A Salesforce org and a HubSpot portal whose whole past is known: people work in them, and what each deal is after every deed is noted."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import orjson
from schedules.portal_truth import CATEGORY, cents, day

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.hubspot import HubSpotPortal
from connectors.simulator.salesforce import SalesforceOrg

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ATTRIBUTES = {
    "crm_stage": "varchar", "is_closed": "boolean", "is_won": "boolean", "amount": "decimal(18, 2)", "currency": "varchar", "close_date": "date",
    "owner_id": "varchar", "probability": "decimal(7, 6)", "forecast_category": "varchar", "pipeline": "varchar", "next_step": "varchar",
    "is_deleted": "boolean",
}  # fmt: skip
STAGES = ["Prospecting", "Qualification", "Needs Analysis", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"]
CATEGORIES = {"Pipeline": "pipeline", "Best Case": "best_case", "Commit": "commit", "Closed": "closed", "Omitted": "omitted"}
STEPS = [None, "Call Karin", "Send the quote"]


class Office:
    """One CRM and its people. A subclass says what its CRM is, what people can do there, and what its deals are at this instant.

    past: (deal, instant, values of ATTRIBUTES) wherever a deal became another one. gone: the instant at which a deal was merged into another
    one or deleted for good, from which on the CRM tells nothing of it. renamed: of a deal that a merge gave another id, the old one: (the new
    one, since when); its past is told under the new one.
    """

    SOURCE = ""
    CHANGES = 9  # deals that are changed at a time

    def __init__(self, seed, clock):
        self.random, self.clock = random.Random(seed), clock
        self.past, self.last, self.gone, self.renamed = [], {}, {}, {}
        self.names = 0

    def note(self):
        """Remember what every deal is now."""
        now, found = self.instant(), self.states()
        for key, state in found.items():
            if self.last.get(key) != state:
                self.past.append((key, now, state))
        for key in self.last.keys() - found.keys() - self.gone.keys():
            self.gone[key] = now
            self.past.append((key, now, (*self.last[key][:-1], True)))
        self.last |= found

    def instant(self):
        return self.clock.now()

    def day(self):
        return date(2026, 3, 1) + timedelta(days=self.random.randrange(300))

    def live(self):
        return [key for key, state in self.last.items() if not state[-1] and key not in self.gone]

    def work(self):
        """Somebody does one thing to each of some deals, at times two within a second, and what is deleted may come back."""
        if self.random.random() < 0.3:
            self.make(2)
        deleted = [key for key, state in self.last.items() if state[-1] and key not in self.gone]
        for key in deleted:
            if self.random.random() < 0.2:
                self.restore(key)
        few = self.random.sample(self.live(), self.CHANGES)
        if self.random.random() < 0.4:
            self.delete(few.pop())
        if self.random.random() < 0.12:
            self.remove(few)
        self.note()
        for _ in range(self.random.choice([1, 1, 2])):
            self.change(few)
            self.note()


class SalesforceOffice(Office):
    """An org that keeps no history of next steps; that of record types and currencies it keeps."""

    SOURCE = "sales"
    UNTRACKED = ("next_step",)

    def __init__(self, seed, clock):
        super().__init__(seed, clock)
        self.org = SalesforceOrg(None, clock, Faults())
        self.org.tracked_fields = [f for f in self.org.tracked_fields if f != "NextStep"] + ["RecordTypeId", "CurrencyIsoCode"]
        self.sellers = [row[0] for row in self.org.rows('select "Id" from "User" order by "Id"')]
        self.types = [row[0] for row in self.org.rows('select "Id" from "RecordType"')] + [self.org.add_record_type("Renewal")]
        self.account = self.org.create("Account", {"Name": "Nordwind"})

    def app(self):
        return self.org.app()

    def instant(self):
        """Salesforce counts seconds."""
        return self.clock.now().replace(microsecond=0)

    def make(self, count):
        pick = self.random.choice
        rows = [
            {"Name": f"Deal {n}", "AccountId": self.account, "RecordTypeId": pick(self.types), "OwnerId": pick(self.sellers),
             "StageName": pick(STAGES), "CloseDate": self.day().isoformat(), "Amount": self.money(), "NextStep": pick(STEPS),
             "CurrencyIsoCode": pick(["EUR", "EUR", "USD"])}
            for n in range(count)
        ]  # fmt: skip
        assert not any(outcome.errors for outcome in self.org.create_many("Opportunity", rows))

    def money(self):
        return self.random.choice([None, 0, self.random.randrange(10_000_000) / 100])

    def change(self, deals):
        outcomes = self.org.update_many("Opportunity", [{"Id": deal, **self.deed()} for deal in deals])
        assert not any(outcome.errors for outcome in outcomes)

    def deed(self):
        pick = self.random.choice
        return pick([
            {"StageName": pick(STAGES)}, {"StageName": pick(STAGES), "CloseDate": self.day().isoformat()}, {"Amount": self.money()},
            {"CloseDate": self.day().isoformat()}, {"OwnerId": pick(self.sellers)}, {"NextStep": pick(STEPS)}, {"Probability": pick([5, 33, 80])},
            {"ForecastCategoryName": pick(["Best Case", "Commit"])}, {"RecordTypeId": pick(self.types)},
            {"Amount": self.money(), "CurrencyIsoCode": pick(["EUR", "USD"]), "StageName": pick(STAGES)},
        ])  # fmt: skip

    def delete(self, deal):
        self.org.delete("Opportunity", deal)

    def restore(self, deal):
        self.org.undelete("Opportunity", deal)

    def remove(self, few):
        """One is deleted for good."""
        self.org.hard_delete("Opportunity", few.pop())

    def states(self):
        rows = self.org.rows("""
            select o."Id", o."StageName", o."IsClosed", o."IsWon", o."Amount", o."CurrencyIsoCode", o."CloseDate", o."OwnerId", o."Probability",
                   o."ForecastCategoryName", coalesce(r."Name", 'default'), o."NextStep", o."IsDeleted"
            from "Opportunity" o left join "RecordType" r on r."Id" = o."RecordTypeId"
        """)
        return {key: (stage, closed, won, None if amount is None else Decimal(amount).quantize(Decimal("0.01")), currency, close_date, owner,
                      None if share is None else Decimal(str(share)) / 100, CATEGORIES[category], pipeline, step, deleted)
                for key, stage, closed, won, amount, currency, close_date, owner, share, category, pipeline, step, deleted in rows}  # fmt: skip

    def close(self):
        self.org.close()


class HubSpotOffice(Office):
    """A portal. HubSpot keeps no history of what is archived and restored."""

    SOURCE = "inbound"
    UNTRACKED = ("currency",)
    CHANGES = 6

    def __init__(self, seed, clock):
        super().__init__(seed, clock)
        self.portal = HubSpotPortal(None, clock, Faults())
        self.portal.limits.lift()
        self.portal.set_exchange_rate("USD", 0.9)
        self.portal.add_pipeline("renewals", "Renewals")
        for label, share, closed in (("Due", 0.5, False), ("Agreed", 0.75, False), ("Renewed", 1.0, True), ("Churned", 0.0, True)):
            self.portal.add_stage("renewals", label, share, closed)
        self.owners = [self.portal.add_owner(f"{n.lower()}@acme.example", n, "Vogel") for n in ("Ada", "Bo", "Cy")]
        self.stages = {p: [stage.id for stage in self.portal.pipelines.stages(p)] for p in ("default", "renewals")}

    def app(self):
        return self.portal.app()

    def place(self):
        pipeline = self.random.choice(["default", "default", "renewals"])
        return {"pipeline": pipeline, "dealstage": self.random.choice(self.stages[pipeline])}

    def money(self):
        return self.random.choice([None, 0, "0.1", f"{self.random.randrange(10_000_000) / 100:.2f}"])

    def close_date(self):
        return datetime.combine(self.day(), datetime.min.time(), UTC) + timedelta(minutes=self.random.randrange(1440))

    def make(self, count):
        pick = self.random.choice
        for _ in range(count):
            self.names += 1
            values = {
                "dealname": f"Deal {self.names}", **self.place(), "closedate": self.close_date(), "amount": self.money(),
                "deal_currency_code": pick(["EUR", "EUR", "USD"]), "hubspot_owner_id": pick([*self.owners, None]), "hs_next_step": pick(STEPS),
                "hs_manual_forecast_category": pick([None, "COMMIT", "BEST_CASE"]),
            }  # fmt: skip
            self.portal.create("deals", {name: value for name, value in values.items() if value is not None})

    def change(self, deals):
        self.clock.advance(timedelta(milliseconds=7))  # HubSpot's history has one value of a property per millisecond
        for deal in deals:
            self.portal.update("deals", deal, self.deed())

    def deed(self):
        pick = self.random.choice
        return pick([
            self.place(), self.place(), {**self.place(), "closedate": self.close_date()}, {"amount": self.money()}, {"closedate": self.close_date()},
            {"closedate": None}, {"hubspot_owner_id": pick([*self.owners, None])}, {"hs_next_step": pick(STEPS)},
            {"hs_manual_forecast_category": pick([None, "COMMIT", "CLOSED", "PIPELINE"])},
            {"amount": self.money(), "deal_currency_code": pick(["EUR", "USD"])},
        ])  # fmt: skip

    def delete(self, deal):
        self.portal.archive("deals", deal)

    def restore(self, deal):
        self.portal.restore("deals", deal)

    def remove(self, few):
        """One is deleted for good, or two are merged."""
        if self.random.random() < 0.4:
            self.portal.purge("deals", few.pop())
        else:
            self.portal.merge_makes_new_record = not self.portal.merge_makes_new_record
            deal = few.pop()
            survivor = self.portal.merge("deals", deal, few.pop())
            if survivor != deal:
                self.past = [(survivor if key == deal else key, at, state) for key, at, state in self.past]
                self.last[survivor] = self.last.pop(deal)
                self.renamed[deal] = (survivor, self.clock.now())

    def states(self):
        rows = self.portal.rows("""
            select d._id::varchar, d.dealstage, d.hs_is_closed = 'true', d.hs_is_closed_won = 'true', d.amount, d.deal_currency_code, d.closedate,
                   d.hubspot_owner_id, d.hs_deal_stage_probability, d.hs_manual_forecast_category, p.label, d.hs_next_step,
                   d._archived_at is not null
            from object_deals d join pipeline p on p.id = d.pipeline
            where d._merged_into is null
        """)
        return {key: (stage, closed, won, cents(amount), currency or "EUR", day(close_date), owner or None, Decimal(share), CATEGORY.get(category),
                      pipeline, step or None, archived)
                for key, stage, closed, won, amount, currency, close_date, owner, share, category, pipeline, step, archived in rows}  # fmt: skip

    def close(self):
        self.portal.close()


class Company:
    """Both offices under one clock."""

    def __init__(self, seed):
        self.random, self.clock = random.Random(seed), SimClock(START)
        self.clock.freeze()
        self.offices = [SalesforceOffice(seed + 1, self.clock), HubSpotOffice(seed + 2, self.clock)]
        for office in self.offices:
            office.make(40)
            office.note()

    def run(self, until):
        """Work from now on. Some deeds are minutes apart, some days."""
        while True:
            step = timedelta(seconds=self.random.choice([self.random.randrange(61, 4_000), self.random.randrange(61, 150_000)]))
            if self.clock.now() + step >= until:
                self.clock.set(until)
                return
            self.clock.advance(step)
            for office in self.random.sample(self.offices, self.random.choice([1, 2])):
                office.work()

    def tell(self, con, synced):
        """Temporary tables of `con`: `truth`, each deal's states, from when to when; `gone` and `renamed`, see Office; `synced`, instants."""
        rows = [
            {"opportunity_key": f"{office.SOURCE}:{key}", "valid_from": at.isoformat(), "seq": seq}
            | {name: None if value is None else str(value) for name, value in zip(ATTRIBUTES, state, strict=True)}
            for office in self.offices for seq, (key, at, state) in enumerate(office.past)
        ]  # fmt: skip
        _table(con, "noted", rows, {"opportunity_key": "varchar", "valid_from": "timestamptz", "seq": "integer", **ATTRIBUTES})
        con.execute("""
            create temp table truth as
            select * exclude seq, lead(valid_from) over (partition by opportunity_key order by valid_from) as valid_to
            from (from noted qualify lead(valid_from) over (partition by opportunity_key order by valid_from, seq) is distinct from valid_from)
        """)
        gone = [{"opportunity_key": f"{o.SOURCE}:{key}", "at": at.isoformat()} for o in self.offices for key, at in o.gone.items()]
        _table(con, "gone", gone, {"opportunity_key": "varchar", "at": "timestamptz"})
        renamed = [
            {"old_key": f"{o.SOURCE}:{old}", "opportunity_key": f"{o.SOURCE}:{new}", "at": at.isoformat()}
            for o in self.offices for old, (new, at) in o.renamed.items()
        ]  # fmt: skip
        _table(con, "renamed", renamed, {"old_key": "varchar", "opportunity_key": "varchar", "at": "timestamptz"})
        con.execute('create temp table synced as select unnest($1::timestamptz[]) as "at"', [synced])

    def close(self):
        for office in self.offices:
            office.close()


def _table(con, name, rows, columns):
    read = "select unnest(from_json($1::json, $2), recursive := true)"
    con.execute(f"create temp table {name} as {read}", [orjson.dumps(rows).decode(), orjson.dumps([columns]).decode()])
