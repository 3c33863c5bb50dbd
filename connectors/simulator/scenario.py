"""A working day in the simulated companies, and what a CRM then holds, to compare a warehouse with.

Everything is done through the methods with which the simulators' own people work, so each edit has its real side effects.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from connectors.simulator.server import Simulator

ZONE = ZoneInfo("Europe/Berlin")
STEP = timedelta(minutes=4)  # of the simulator's clock between two groups of edits
TIERS = ["Gold", "Silver", "Bronze"]
STEPS = (
    "Send revised quote by {day}", "Call purchasing on {day} about terms", "Demo for the shift leads on {day}",
    "Contract back from legal by {day}", "Confirm budget with the plant manager by {day}", "Site visit on {day}",
)  # fmt: skip


class Deal(NamedTuple):
    """A deal as its CRM holds it. merged_into: id of the survivor; HubSpot's API shows no other trace of a merged deal."""

    id: str
    amount: Decimal | None
    stage: str
    owner: str | None
    is_deleted: bool
    merged_into: str | None


def truth(sim: Simulator) -> dict[str, dict[str, Deal]]:
    """By CRM and id: every deal that its CRM still has, deleted and merged ones marked. What was purged is not in it."""
    found: dict[str, dict[str, Deal]] = {}
    if "salesforce" in sim.crms:
        rows = sim.salesforce.rows('SELECT "Id", "Amount", "StageName", "OwnerId", "IsDeleted", NULL FROM "Opportunity"')
        found["salesforce"] = {row[0]: Deal(*row) for row in rows}
    if "hubspot" in sim.crms:
        rows = sim.hubspot.rows(
            """select _id::varchar, nullif(amount, '')::decimal(18, 2), dealstage, nullif(hubspot_owner_id, ''),
                      _archived_at is not null or _merged_into is not null, _merged_into::varchar
               from object_deals"""
        )
        found["hubspot"] = {row[0]: Deal(*row) for row in rows}
    return found


def planted(sim: Simulator) -> dict[str, dict[str, set[str]]]:
    """By CRM and defect: ids of the deals in which it was planted when the company was made (company.planted).

    Later edits are not followed. Empty for a CRM whose state was taken up from a directory.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for crm, con in sim.companies.items():
        if crm == "salesforce":
            known = sim.salesforce.rows("SELECT company_id, id FROM simulator.company_key WHERE sobject = 'Opportunity'")
        else:
            known = sim.hubspot.rows("select company_id, object_id::varchar from loaded where kind = 'deal'")
        ids = dict(known)
        defects = con.execute("select defect, list(deal_id) from company.planted group by 1 order by 1").fetchall()
        found[crm] = {defect: {ids[deal] for deal in deals} for defect, deals in defects}
    return found


def changed_day(sim: Simulator) -> list[str]:
    """What people did in one working day, done: returned as plain sentences. The simulator's clock moves on by some hours.

    Can be called again for another day. A company with few open deals gets fewer edits of each kind.
    """
    told: list[str] = []
    if "salesforce" in sim.crms:
        told += SalesforceDay(sim).play()
    if "hubspot" in sim.crms:
        told += HubSpotDay(sim).play()
    return told


class _Day:
    """The deals that are open this morning, each of which is edited once at most, and the clock."""

    crm = ""

    def __init__(self, sim: Simulator, deals: list[dict[str, Any]]) -> None:
        self.sim, self.pool = sim, deals
        self.today: date = sim.clock.now().astimezone(ZONE).date()
        self.told: list[str] = []

    def take(self, count: int, fit: Callable[[dict[str, Any]], bool] = lambda deal: True) -> list[dict[str, Any]]:
        """Up to `count` deals that nothing has been done to today."""
        chosen = [deal for deal in self.pool if fit(deal)][:count]
        self.pool = [deal for deal in self.pool if deal not in chosen]
        self.sim.clock.advance(STEP)
        return chosen

    def tell(self, count: int, one: str, many: str) -> None:
        if count:
            self.told.append(f"{self.crm}: {one if count == 1 else many.format(n=count)}")

    def workday(self, days: int) -> date:
        day = self.today + timedelta(days=days)
        return day + timedelta(days=max(0, 7 - day.isoweekday())) if day.isoweekday() > 5 else day

    def at(self, day: date, hour: int) -> datetime:
        return datetime.combine(day, time(hour), ZONE).astimezone(UTC)

    def step(self, number: int) -> str:
        day = self.workday(3 + number % 9)
        return STEPS[number % len(STEPS)].format(day=f"{day.day} {day:%b}")


class SalesforceDay(_Day):
    crm = "Salesforce"

    def __init__(self, sim: Simulator) -> None:
        self.org = sim.salesforce
        names = ("id", "name", "stage", "amount", "close", "owner", "account", "record_type", "currency", "contacts")
        rows = self.org.rows(
            """
            SELECT o."Id", o."Name", o."StageName", o."Amount", o."CloseDate", o."OwnerId", o."AccountId", o."RecordTypeId",
                   o."CurrencyIsoCode",
                   (SELECT count(*) FROM "OpportunityContactRole" r WHERE r."OpportunityId" = o."Id" AND NOT r."IsDeleted")
            FROM "Opportunity" o JOIN "User" u ON u."Id" = o."OwnerId"
            WHERE NOT o."IsDeleted" AND NOT o."IsClosed" AND u."IsActive" AND u."UserType" = 'Standard' AND o."AccountId" IS NOT NULL
            ORDER BY md5(o."Id") LIMIT 500
            """
        )
        super().__init__(sim, [dict(zip(names, row, strict=True)) for row in rows])

    def edit(self, deals: list[dict[str, Any]], values: Callable[[dict[str, Any], int], dict[str, Any]]) -> int:
        for number, deal in enumerate(deals):
            self.org.update("Opportunity", deal["id"], values(deal, number), by=deal["owner"])
        return len(deals)

    def play(self) -> list[str]:
        self._ordinary()
        self._people()
        self._closings()
        self._records()
        self._administration()
        return self.told

    def _ordinary(self) -> None:
        onwards = {
            "Prospecting": "Qualification", "Qualification": "Needs Analysis", "Needs Analysis": "Proposal/Price Quote",
            "Proposal/Price Quote": "Negotiation/Review", "Perception Analysis": "Proposal/Price Quote",
        }  # fmt: skip
        n = self.edit(self.take(9, lambda d: d["stage"] in onwards), lambda d, i: {"StageName": onwards[d["stage"]]})
        self.tell(n, "a deal moved on a stage.", "{n} deals moved on a stage.")
        n = self.edit(self.take(3, lambda d: d["close"] < self.today), lambda d, i: {"CloseDate": self.workday(20 + 7 * i)})
        self.tell(n, "a close date in the past was put right.", "{n} close dates in the past were put right.")
        n = self.edit(self.take(6), lambda d, i: {"CloseDate": max(d["close"], self.today) + timedelta(days=14 + 5 * i)})
        self.tell(n, "a close date was pushed.", "{n} close dates were pushed.")
        n = self.edit(self.take(10), lambda d, i: {"NextStep": self.step(i)})
        self.tell(n, "a next step was written.", "{n} next steps were written.")
        n = self.edit(self.take(5, lambda d: d["amount"]), lambda d, i: {"Amount": round(d["amount"] * Decimal("1.15"), -1)})
        self.tell(n, "an amount was raised.", "{n} amounts were raised.")

        made = self.take(5)
        for number, like in enumerate(made):
            name = f"{like['name'].split(' - ')[0]} - Insight pilot"
            self.org.create(
                "Opportunity",
                {"Name": name, "AccountId": like["account"], "RecordTypeId": like["record_type"], "StageName": "Qualification",
                 "CloseDate": self.workday(60 + 9 * number), "Amount": 9000 + 2500 * number, "CurrencyIsoCode": like["currency"],
                 "OwnerId": like["owner"], "NextStep": self.step(number), "LeadSource": "Web",
                 "Description": "Came in over the web form; wants to see the analysis on one line first."},
                by=like["owner"],
            )  # fmt: skip
        self.tell(len(made), "a new deal was entered.", "{n} new deals were entered.")

    def _people(self) -> None:
        called = self.take(8)
        for deal in called:
            call = {
                "WhatId": deal["id"], "OwnerId": deal["owner"], "Subject": "Call", "Status": "Completed", "TaskSubtype": "Call",
                "ActivityDate": self.today,
            }  # fmt: skip
            self.org.create("Task", call, by=deal["owner"])
        self.tell(len(called), "a call was logged.", "{n} calls were logged.")
        met = self.take(2)
        for deal in met:
            start = self.at(self.workday(4), 10)
            meeting = {
                "WhatId": deal["id"], "OwnerId": deal["owner"], "Subject": "Workshop on site", "StartDateTime": start,
                "EndDateTime": start + timedelta(hours=1),
            }  # fmt: skip
            self.org.create("Event", meeting, by=deal["owner"])
        self.tell(len(met), "a meeting was booked.", "{n} meetings were booked.")
        attached = self.take(3)
        for number, deal in enumerate(attached):
            person = {"AccountId": deal["account"], "FirstName": "Robin", "LastName": f"Castell {number + 1}", "Title": "Plant Manager"}
            contact = self.org.create("Contact", person, by=deal["owner"])
            role = {"OpportunityId": deal["id"], "ContactId": contact, "Role": "Decision Maker"}
            self.org.create("OpportunityContactRole", role, by=deal["owner"])
        self.tell(
            len(attached), "a contact was attached to a deal, whose stamp did not move.",
            "{n} contacts were attached to deals, whose stamps did not move.",
        )  # fmt: skip
        detached = self.take(2, lambda d: d["contacts"] >= 1)
        for deal in detached:
            roles = self.org.rows(
                'SELECT "Id" FROM "OpportunityContactRole" WHERE "OpportunityId" = ? AND NOT "IsDeleted" ORDER BY "Id" DESC', [deal["id"]]
            )
            self.org.delete("OpportunityContactRole", roles[0][0], by=deal["owner"])
        self.tell(len(detached), "a contact was taken off a deal.", "{n} contacts were taken off deals.")

    def _closings(self) -> None:
        won = self.take(3, lambda d: d["amount"] and d["stage"] in ("Negotiation/Review", "Verbal", "Proposal/Price Quote"))
        n = self.edit(won, lambda d, i: {"StageName": "Closed Won", "CloseDate": self.today})
        self.tell(n, "a deal was won.", "{n} deals were won.")
        reasons = ["Price", "No decision", None]
        n = self.edit(self.take(3), lambda d, i: {"StageName": "Closed Lost", "CloseDate": self.today, "Loss_Reason__c": reasons[i % 3]})
        self.tell(n, "a deal was lost.", "{n} deals were lost, one of them without a reason.")

    def _records(self) -> None:
        binned = self.org.rows('SELECT "Id" FROM "Opportunity" WHERE "IsDeleted" ORDER BY "SystemModstamp" DESC, "Id" LIMIT 1')
        for (deal,) in binned:
            self.org.undelete("Opportunity", deal)
        self.tell(len(binned), "a deleted deal was taken out of the recycle bin.", "")
        deleted = self.take(3)
        for deal in deleted:
            self.org.delete("Opportunity", deal["id"], by=deal["owner"])
        self.tell(len(deleted), "a deal was deleted.", "{n} deals were deleted.")
        erased = self.take(1)
        for deal in erased:
            self.org.delete("Opportunity", deal["id"])
            self.org.hard_delete("Opportunity", deal["id"])
        self.tell(len(erased), "a deal was deleted for good: only the list of deletions still knows its id.", "")
        pair = self.org.rows(
            """
            SELECT a."Id" FROM "Account" a JOIN "Opportunity" o ON o."AccountId" = a."Id" AND NOT o."IsDeleted"
            WHERE NOT a."IsDeleted" GROUP BY a."Id" HAVING count(*) >= 2 ORDER BY md5(a."Id") LIMIT 2
            """
        )
        if len(pair) == 2:
            self.org.merge_accounts(pair[0][0], [pair[1][0]])
            self.tell(1, "two accounts turned out to be one and were merged, their deals with them.", "")

    def _administration(self) -> None:
        label = "Steering Gate"
        if not self.org.rows('SELECT 1 FROM "OpportunityStage" WHERE "MasterLabel" = ?', [label]):
            self.org.add_stage(label, probability=65, forecast_category="Pipeline")
        n = self.edit(self.take(2), lambda d, i: {"StageName": label})
        self.tell(n, f"the admin made a stage called {label}, and a deal stands in it.",
                  f"the admin made a stage called {label}, and {{n}} deals stand in it.")  # fmt: skip
        if "Partner_Tier__c" not in self.org.objects["Opportunity"].fields:
            self.org.add_field("Opportunity", "Partner_Tier__c", "picklist", "Partner Tier", picklist=TIERS)
        n = self.edit(self.take(4), lambda d, i: {"Partner_Tier__c": TIERS[i % 3]})
        self.tell(n, "a field called Partner Tier was added and filled on a deal.",
                  "a field called Partner Tier was added and filled on {n} deals.")  # fmt: skip
        self.org.set_formula("Opportunity", "Weighted_Amount__c", "Amount * Probability / 110")
        self.tell(1, "the formula of Weighted Amount was changed: every deal shows another value and no stamp moved.", "")
        leaver = self.org.rows(
            """
            SELECT u."Id", u."FirstName" || ' ' || u."LastName" FROM "User" u
            JOIN "Opportunity" o ON o."OwnerId" = u."Id" AND NOT o."IsDeleted" AND NOT o."IsClosed"
            WHERE u."IsActive" AND u."UserType" = 'Standard' AND u."Title" = 'Account Executive'
            GROUP BY ALL HAVING count(*) >= 2 ORDER BY count(*), u."Id" LIMIT 1
            """
        )
        for user, name in leaver:
            self.org.update("User", user, {"IsActive": False})
            self.tell(1, f"{name} left the company; the deals stay in that name.", "")


class HubSpotDay(_Day):
    crm = "HubSpot"

    def __init__(self, sim: Simulator) -> None:
        self.portal = sim.hubspot
        names = ("id", "name", "pipeline", "stage", "amount", "close", "owner", "user", "currency", "company", "contacts", "onwards")
        rows = self.portal.rows(
            """
            with ordered as (
                select *, lead(id) over (partition by pipeline order by display_order) as onwards
                from stage where archived_at is null and not is_closed
            ), linked as (
                select from_id, min(to_id) filter (to_type = 'companies') as company,
                       count(distinct to_id) filter (to_type = 'contacts') as contacts
                from association where from_type = 'deals' and not hidden group by from_id
            )
            select d._id::varchar, d.dealname, d.pipeline, d.dealstage, nullif(d.amount, '')::decimal(18, 2), d.closedate,
                   d.hubspot_owner_id, o.user_id, d.deal_currency_code, l.company, coalesce(l.contacts, 0), s.onwards
            from object_deals d
            join ordered s on s.pipeline = d.pipeline and s.id = d.dealstage
            join owner o on o.id::varchar = d.hubspot_owner_id and o.archived_at is null
            left join linked l on l.from_id = d._id
            where d._archived_at is null and d._merged_into is null
            order by md5(d._id::varchar) limit 500
            """
        )
        super().__init__(sim, [dict(zip(names, row, strict=True)) for row in rows])

    def edit(self, deals: list[dict[str, Any]], values: Callable[[dict[str, Any], int], dict[str, Any]]) -> int:
        for number, deal in enumerate(deals):
            self.portal.update("deals", deal["id"], values(deal, number), user_id=deal["user"])
        return len(deals)

    def play(self) -> list[str]:
        self._ordinary()
        self._people()
        self._closings()
        self._records()
        self._administration()
        return self.told

    def instant(self, day: date) -> str:
        return self.at(day, 12).isoformat().replace("+00:00", "Z")

    def closing_stage(self, deal: dict[str, Any], *, won: bool) -> str:
        order = "desc" if won else "asc"
        rows = self.portal.rows(
            f"select id from stage where pipeline = ? and is_closed and archived_at is null order by probability {order}, display_order",
            [deal["pipeline"]],
        )
        return str(rows[0][0])

    def _ordinary(self) -> None:
        n = self.edit(self.take(6, lambda d: d["onwards"] is not None), lambda d, i: {"dealstage": d["onwards"]})
        self.tell(n, "a deal moved on a stage.", "{n} deals moved on a stage.")
        n = self.edit(self.take(5), lambda d, i: {"closedate": self.instant(self.workday(30 + 6 * i))})
        self.tell(n, "a close date was changed.", "{n} close dates were changed.")
        n = self.edit(self.take(7), lambda d, i: {"hs_next_step": self.step(i)})
        self.tell(n, "a next step was written.", "{n} next steps were written.")
        n = self.edit(self.take(4, lambda d: d["amount"]), lambda d, i: {"amount": round(d["amount"] * Decimal("0.9"), -1)})
        self.tell(n, "an amount was lowered.", "{n} amounts were lowered.")
        made = self.take(4)
        for number, like in enumerate(made):
            first = self.portal.rows(
                "select id from stage where pipeline = ? and not is_closed and archived_at is null order by display_order",
                [like["pipeline"]],
            )[0][0]
            self.portal.create(
                "deals",
                {"dealname": f"{like['name'].split(' - ')[0]} - Connect pilot", "pipeline": like["pipeline"], "dealstage": first,
                 "amount": 6000 + 1500 * number, "deal_currency_code": like["currency"], "hubspot_owner_id": like["owner"],
                 "closedate": self.instant(self.workday(50 + 8 * number)), "hs_next_step": self.step(number)},
                [("companies", like["company"])] if like["company"] else [],
                user_id=like["user"],
            )  # fmt: skip
        self.tell(len(made), "a new deal was entered.", "{n} new deals were entered.")

    def _people(self) -> None:
        called = self.take(6)
        for deal in called:
            self.portal.log_activity(deal["id"], "call", subject="Call", owner_id=deal["owner"], user_id=deal["user"])
        self.tell(len(called), "a call was logged.", "{n} calls were logged.")
        attached = self.take(3)
        for number, deal in enumerate(attached):
            person = {"firstname": "Sam", "lastname": f"Corvin {number + 1}", "jobtitle": "Operations Director"}
            self.portal.associate("deals", deal["id"], "contacts", self.portal.create("contacts", person, user_id=deal["user"]))
        self.tell(
            len(attached), "a contact was associated with a deal, whose stamp did not move.",
            "{n} contacts were associated with deals, whose stamps did not move.",
        )  # fmt: skip
        detached = self.take(2, lambda d: d["contacts"] >= 1)
        for deal in detached:
            contact = self.portal.rows(
                """select max(to_id) from association
                   where from_type = 'deals' and from_id = ? and to_type = 'contacts' and not hidden""", [int(deal["id"])]
            )[0][0]  # fmt: skip
            self.portal.dissociate("deals", deal["id"], "contacts", contact)
        self.tell(
            len(detached), "the association of a contact with a deal was removed, without a stamp.",
            "the associations of {n} contacts with deals were removed, without a stamp.",
        )  # fmt: skip

    def _closings(self) -> None:
        n = self.edit(self.take(2, lambda d: d["amount"]), lambda d, i: {"dealstage": self.closing_stage(d, won=True)})
        self.tell(n, "a deal was won.", "{n} deals were won.")
        reasons = ["Price", ""]
        n = self.edit(
            self.take(2), lambda d, i: {"dealstage": self.closing_stage(d, won=False), "closed_lost_reason": reasons[i % 2]}
        )
        self.tell(n, "a deal was lost.", "{n} deals were lost, one of them without a reason.")

    def _records(self) -> None:
        binned = self.portal.rows(
            """select _id from object_deals where _archived_at > ?::timestamptz - interval 80 days and _merged_into is null
               order by _archived_at desc, _id limit 1""",
            [self.sim.clock.now()],
        )
        for (deal,) in binned:
            self.portal.restore("deals", deal)
        self.tell(len(binned), "an archived deal was restored, with its old stamp.", "")
        archived = self.take(3)
        for deal in archived:
            self.portal.archive("deals", deal["id"])
        self.tell(len(archived), "a deal was archived.", "{n} deals were archived.")
        erased = self.take(1)
        for deal in erased:
            self.portal.purge("deals", deal["id"])
        self.tell(len(erased), "a deal was deleted permanently, for privacy: no list knows it any more.", "")
        merged = self.take(4)
        for survivor, other in zip(merged[::2], merged[1::2], strict=False):
            self.portal.merge("deals", survivor["id"], other["id"], user_id=survivor["user"])
        self.tell(len(merged) // 2, "a deal was merged into another.", "{n} deals were merged into others.")

    def _administration(self) -> None:
        label = "Second Look"
        deals = self.take(1)
        for deal in deals:
            known = self.portal.rows("select id from stage where pipeline = ? and label = ?", [deal["pipeline"], label])
            stage = known[0][0] if known else self.portal.add_stage(deal["pipeline"], label, 0.5)
            self.edit([deal], lambda d, i, stage=stage: {"dealstage": stage})  # type: ignore[misc]
        self.tell(len(deals), f"a stage called {label} was made, and a deal stands in it.", "")
        if "partner_tier" not in self.portal.catalogue.find("deals").properties:
            self.portal.add_property("deals", "partner_tier", "enumeration", "select", "Partner tier", TIERS)
        n = self.edit(self.take(3), lambda d, i: {"partner_tier": TIERS[i % 3]})
        self.tell(n, "a property called Partner tier was added and filled on a deal.",
                  "a property called Partner tier was added and filled on {n} deals.")  # fmt: skip
        formula = "amount_in_home_currency * hs_deal_stage_probability * 0.9"
        self.portal.change_formula("deals", "weighted_amount", formula)
        self.tell(1, "the formula of Weighted amount was changed: every deal shows another value and no stamp moved.", "")
        leaver = self.portal.rows(
            """select o.id, o.first_name || ' ' || o.last_name from owner o
               join object_deals d on d.hubspot_owner_id = o.id::varchar and d._archived_at is null and d._merged_into is null
               join stage s on s.pipeline = d.pipeline and s.id = d.dealstage and not s.is_closed
               where o.archived_at is null group by all having count(*) >= 2 order by count(*), o.id limit 1"""
        )
        for owner, name in leaver:
            self.portal.deactivate_owner(owner)
            self.tell(1, f"{name} left the company; the deals stay in that name.", "")
