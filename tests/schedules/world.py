"""A small org in which people and admins work, and a Plumbline that syncs it under all kinds of trouble.

Every act is told in a sentence: the sentences are what a failing schedule prints. Acts take small numbers, drawn by hypothesis, and
find by them the records that they are done to, so that any schedule can be played against whatever is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import duckdb
from schedules import common
from schedules.common import DAY, HOUR, MINUTE, START, WORDS
from schedules.truth import differences

from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg
from connectors.simulator.salesforce.errors import DAILY_LIMIT, SalesforceError

DAILY = 10_000  # calls of a day
PAGE = 3  # records a page, by REST and by Bulk: five deals are two pages
CONFIG = """
[warehouse]
path = "plumbline.duckdb"
landing = "landing"
threads = 1

[sources.sales]
crm = "salesforce"
instance_url = "{url}"
client_id = "${{SF_CLIENT_ID}}"
client_secret = "${{SF_CLIENT_SECRET}}"
api = "{api}"
quota_share = {share}
overlap_minutes = {overlap}
{version}

[sources.sales.fields]
lost_reason = "Loss_Reason__c"
"""
ENVIRONMENT = {"SF_CLIENT_ID": "plumbline-demo", "SF_CLIENT_SECRET": "demo-secret"}
STAGES = ["Prospecting", "Qualification", "Needs Analysis", "Proposal/Price Quote", "Closed Won", "Closed Lost"]
CURRENCIES = ["EUR", "USD", "GBP"]  # the org has a rate for the first two


class Ground(common.Ground):
    """An org behind its server, and the process that starts syncs."""

    def __init__(self) -> None:
        super().__init__("salesforce", ENVIRONMENT)
        self.org = SalesforceOrg(None, self.clock, Faults())
        app = self.org.app()
        app.add_middleware(_Between, ground=self)
        self.server = serve(app)

    def close(self) -> None:
        self.server.stop()
        self.nursery.close()
        self.org.close()


class _Between:
    """Outermost part of the server: counts what the org is asked, and lets things happen between two requests."""

    def __init__(self, app: Any, ground: Ground) -> None:
        self.app, self.ground = app, ground

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/services/data/v"):
            self.ground.is_asked()
        await self.app(scope, receive, send)


@dataclass
class World(common.World):
    """One schedule's org and people, and the directory of the Plumbline beside it."""

    SOURCE = "sales"
    REFUSED = SalesforceError  # held by a transaction that is open, in the bin with its deal, …

    version: str | None = None
    lost_jobs: int = 0  # Bulk jobs whose answer never arrived: nobody knows their names

    def __post_init__(self) -> None:
        self.org, self.clock, self.faults = self.ground.org, self.ground.clock, self.ground.org.faults
        self.clock.set(START)
        self.org.reset()
        self.org.in_progress_polls = 0
        self.org.query_page = self.org.bulk_page = PAGE  # batchSize is a hint: orgs may send fewer records
        self.ground.meanwhile.clear()
        profile = self.org.rows('select min("Id") from "Profile"')[0][0]
        roles = self.org.insert("UserRole", [{"Name": "Sales North"}, {"Name": "Sales South"}])
        common = {"ProfileId": profile, "IsActive": True, "TimeZoneSidKey": "Europe/Berlin", "UserType": "Standard"}
        self.users = self.org.insert(
            "User",
            [common | {"Username": f"{n}@acme.example", "FirstName": n, "LastName": "Vogel", "Email": f"{n}@acme.example", "Alias": n.lower(),
                       "UserRoleId": roles[i % 2]} for i, n in enumerate(("Ada", "Bo", "Cy"))],
        )  # fmt: skip
        self.org.add_record_type("Renewal")
        accounts = self.org.create_many("Account", [{"Name": f"Account {c}", "Industry": "Energy"} for c in "ABC"])
        people = [{"LastName": f"Person {n}", "AccountId": accounts[n % 3].id} for n in range(3)]
        self.contacts = [o.id for o in self.org.create_many("Contact", people)]

    # --- who and what is there ---

    def ids(self, sobject: str, where: str = "true") -> list[str]:
        found = [row[0] for row in self.org.rows(f'select "Id" from "{sobject}" where {where} order by "Id"')]
        return [i for i in found if i != self.pulse.get(sobject)]

    def deals(self, where: str = 'not "IsDeleted"') -> list[str]:
        return self.ids("Opportunity", where)

    def label(self, record: str | None) -> str:
        return f"…{record[12:15]}" if record else "none"

    # --- acts: deals ---

    def life_goes_on(self, hours: float) -> None:
        """Time goes by, and elsewhere in the org somebody works: so the watermark of every object moves on, past what was read."""
        self.clock.advance(timedelta(hours=hours))
        if hours < 1:
            return
        if not self.pulse:
            account = self.org.create("Account", {"Name": "Elsewhere"})
            deal = self.org.create(
                "Opportunity", {"Name": "Elsewhere", "AccountId": account, "StageName": "Prospecting", "CloseDate": "2026-06-30"}
            )  # fmt: skip
            person = self.org.create("Contact", {"LastName": "Elsewhere", "AccountId": account})
            role = self.org.create("OpportunityContactRole", {"OpportunityId": deal, "ContactId": person})
            what = {"WhatId": deal, "Subject": "Call"}
            event = self.org.create("Event", {**what, "StartDateTime": START + 90 * DAY, "EndDateTime": START + 90 * DAY + HOUR})
            task = self.org.create("Task", what)
            self.pulse = {"Account": account, "Opportunity": deal, "OpportunityContactRole": role, "Task": task, "Event": event}
        self.beats += 1
        for sobject, values in {
            "Account": {"Name": f"Elsewhere {self.beats}"}, "Opportunity": {"NextStep": f"beat {self.beats}", "Amount": self.beats},
            "OpportunityContactRole": {"Role": ["Evaluator", "Decision Maker"][self.beats % 2]}, "Task": {"Subject": f"Call {self.beats}"},
            "Event": {"Subject": f"Visit {self.beats}"},
        }.items():  # fmt: skip
            shown = self.org.objects[sobject].fields
            self.org.update(sobject, self.pulse[sobject], {name: value for name, value in values.items() if not shown[name].hidden})
        self.tell("elsewhere somebody worked")

    def create(self, a: int, b: int) -> None:
        """One to four deals, all with one stamp."""
        rows = []
        accounts = self.ids("Account", 'not "IsDeleted"')
        types = self.ids("RecordType")
        for n in range(1 + a % 4):
            self.names += 1
            rows.append(
                {"Name": f"Deal {self.names}", "AccountId": accounts[(a + n) % len(accounts)] if accounts else None,
                 "StageName": STAGES[(b + n) % 5], "CloseDate": (START + (b * 7 % 90) * DAY).date(),
                 "Amount": [None, 0, 1200, 99000.5][(a + b + n) % 4],
                 "CurrencyIsoCode": CURRENCIES[(a + n) % 3], "OwnerId": self.active_user(b), "NextStep": WORDS[b % len(WORDS)],
                 "Description": WORDS[(a + b) % len(WORDS)], "RecordTypeId": types[a % len(types)]}
            )  # fmt: skip
        made = [o.id for o in self.org.create_many("Opportunity", rows, by=self.active_user(a))]
        self.tell(f"deals were created: {', '.join(map(self.label, made))}")

    def active_user(self, number: int) -> str:
        active = self.ids("User", "\"IsActive\" and \"UserType\" = 'Standard' and \"FirstName\" in ('Ada', 'Bo', 'Cy')")
        return active[number % len(active)] if active else self.org.admin_id

    def edit(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self._update(deals[a % len(deals)], self.change(b))

    def change(self, b: int) -> dict[str, Any]:
        accounts = self.ids("Account", 'not "IsDeleted"') or [None]
        pick = b // 9
        return [
            {"StageName": STAGES[pick % len(STAGES)]},
            {"Amount": [None, 0, 1, 5000, 99000.5, 12345678.25][pick % 6]},
            {"CloseDate": (self.clock.now() + (pick % 60 - 10) * DAY).date()},
            {"NextStep": WORDS[pick % len(WORDS)]},
            {"OwnerId": self.active_user(pick)},
            {"Region__c": ["DACH", "Nordics", None][pick % 3], "Win_Reason__c": WORDS[pick % len(WORDS)]},
            {"AccountId": accounts[pick % len(accounts)]},
            {"Probability": pick % 101, "ForecastCategoryName": ["Commit", "Best Case", "Pipeline"][pick % 3]},
            {"Description": WORDS[pick % len(WORDS)], "Loss_Reason__c": ["Price", None][pick % 2], "Type": ["New Business", None][pick % 2]},
        ][b % 9]  # fmt: skip

    def _update(self, deal: str, values: dict[str, Any]) -> None:
        visible = self.org.objects["Opportunity"].fields
        values = {name: value for name, value in values.items() if name in visible and not visible[name].hidden}
        if values:
            self.org.update("Opportunity", deal, values, by=self.active_user(1))
            self.tell(f"deal {self.label(deal)} was edited: {values}")

    def edit_many(self, a: int, b: int) -> None:
        """A list view edited in one go: all with one stamp."""
        deals = self.deals()
        if deals:
            self.org.update_many("Opportunity", [{"Id": deal, "NextStep": f"by {b}"} for deal in deals], by=self.active_user(a))
            self.tell(f"{len(deals)} deals got the next step 'by {b}' in one transaction")

    def back_and_forth(self, a: int, b: int) -> None:
        """Several moves of one deal within a second."""
        deals = self.deals()
        if deals:
            deal = deals[a % len(deals)]
            for stage in (STAGES[b % 4], STAGES[(b + 1) % 4], STAGES[b % 4]):
                self.org.update("Opportunity", deal, {"StageName": stage}, by=self.active_user(1))
            self.tell(f"deal {self.label(deal)} went to {STAGES[(b + 1) % 4]} and back to {STAGES[b % 4]} within a second")

    def delete(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self.org.delete("Opportunity", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} was deleted")

    def undelete(self, a: int, b: int) -> None:
        deals = self.deals('"IsDeleted" and _deleted_with is null')
        if deals:
            self.org.undelete("Opportunity", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} came back from the recycle bin")

    def hard_delete(self, a: int, b: int) -> None:
        deals = self.deals('_deleted_with is null or not "IsDeleted"')
        if deals:
            self.org.hard_delete("Opportunity", deals[a % len(deals)])
            self.tell(f"deal {self.label(deals[a % len(deals)])} was deleted for good")

    def late(self, a: int, b: int) -> None:
        """A transaction that stays open for less than the overlap."""
        self._late(timedelta(minutes=self.overlap * [0.1, 0.5, 0.9, 0.98][a % 4]), a // 4, b)

    def very_late(self, a: int, b: int) -> None:
        """A transaction that stays open for longer than the overlap."""
        by = timedelta(minutes=self.overlap) + [MINUTE, HOUR, 5 * HOUR][a % 3]
        self._late(by, a // 3, b)
        self.sweep_due.append("a transaction that was open for longer than the overlap")

    def _late(self, by: timedelta, a: int, b: int) -> None:
        self.clock.advance(timedelta(seconds=1))  # its stamp is its own: else a comparison of stamps could not tell it from what was read
        deals = self.deals()
        self.org.late(by.total_seconds())
        self.commits.append(self.clock.now() + by)
        self.tell(f"the next write is stamped now and visible {by} later:")
        try:
            if not deals or b % 4 == 0:
                self.create(a, b)
            elif b % 4 == 1:
                self.delete(a, b)
            else:
                self._update(deals[a % len(deals)], self.change(b // 4 % 3 + 9 * b))
        finally:
            self.faults.clear()  # where there was nothing to write

    def hide_deal(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self.org.hide_records("Opportunity", [deals[a % len(deals)]])
            self.tell(f"the user lost sight of deal {self.label(deals[a % len(deals)])}")
            self.sweep_due.append("lost sight of a deal")

    def show_deal(self, a: int, b: int) -> None:
        hidden = [row[0] for row in self.org.rows("select distinct id from simulator.unshared order by id")]
        if hidden:
            self.org.hide_records("Opportunity", [hidden[a % len(hidden)]], hidden=False)
            self.tell(f"the user sees deal {self.label(hidden[a % len(hidden)])} again")
            self.sweep_due.append("sight of a deal regained")

    def line_items(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            self.org.set_line_items(deals[a % len(deals)], bool(b % 2))
            self.tell(f"deal {self.label(deals[a % len(deals)])} has {'' if b % 2 else 'no '}line items now")

    # --- acts: accounts, people ---

    def merge(self, a: int, b: int) -> None:
        accounts = self.ids("Account", 'not "IsDeleted"')
        if len(accounts) > 1:
            master, loser = accounts[a % len(accounts)], accounts[(a + 1 + b % (len(accounts) - 1)) % len(accounts)]
            self.org.merge_accounts(master, [loser])
            self.tell(f"account {self.label(loser)} was merged into {self.label(master)}")

    def rename_account(self, a: int, b: int) -> None:
        accounts = self.ids("Account", 'not "IsDeleted"')
        if accounts:
            self.org.update("Account", accounts[a % len(accounts)], {"Name": f"Account {b}", "Industry": ["Energy", "Retail", None][b % 3]})
            self.tell(f"account {self.label(accounts[a % len(accounts)])} is called Account {b} now, and its industry changed")

    def new_account(self, a: int, b: int) -> None:
        self.org.create("Account", {"Name": f"Newcomer {b}"})
        self.tell(f"an account Newcomer {b} was made")

    def delete_account(self, a: int, b: int) -> None:
        accounts = self.ids("Account", 'not "IsDeleted"')
        if len(accounts) > 1:
            self.org.delete("Account", accounts[a % len(accounts)])
            self.tell(f"account {self.label(accounts[a % len(accounts)])} was deleted, its deals with it")

    def undelete_account(self, a: int, b: int) -> None:
        accounts = self.ids("Account", '"IsDeleted" and "MasterRecordId" is null')
        if accounts:
            self.org.undelete("Account", accounts[a % len(accounts)])
            self.tell(f"account {self.label(accounts[a % len(accounts)])} came back, its deals with it")

    def person_changes(self, a: int, b: int) -> None:
        user = self.users[a % 3]
        values: dict[str, Any] = [{"LastName": f"Falk {b}"}, {"IsActive": False}, {"IsActive": True}][b % 3]
        self.org.update("User", user, values)
        self.tell(f"user {self.label(user)}: {values}")

    # --- acts: around the deal ---

    def add_role(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            deal, contact = deals[a % len(deals)], self.contacts[b % 3]
            self.org.create("OpportunityContactRole", {"OpportunityId": deal, "ContactId": contact, "Role": ["Decision Maker", None][b % 2]})
            self.tell(f"contact {self.label(contact)} was attached to deal {self.label(deal)}")

    def change_role(self, a: int, b: int) -> None:
        roles = self.ids("OpportunityContactRole", 'not "IsDeleted"')
        if roles:
            role = roles[a % len(roles)]
            self.org.update("OpportunityContactRole", role, {"Role": ["Business User", "Evaluator", None][b % 3]})
            self.tell(f"role {self.label(role)} changed")

    def remove_role(self, a: int, b: int) -> None:
        self._remove("OpportunityContactRole", a, b)

    def add_task(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            deal = deals[a % len(deals)]
            due = (self.clock.now() + ((b // 2) % 9 - 4) * DAY).date()
            task = {"WhatId": deal, "Subject": "Call", "ActivityDate": due, "Status": ["Not Started", "Completed"][b % 2]}
            made = self.org.create("Task", {**task, "OwnerId": self.active_user(b)}, by=self.active_user(b))
            self.tell(f"task {self.label(made)} ({task['Status']}, due {due}) was added to deal {self.label(deal)}")

    def add_event(self, a: int, b: int) -> None:
        deals = self.deals()
        if deals:
            deal = deals[a % len(deals)]
            start = self.clock.now() + (b % 9 - 4) * DAY + timedelta(minutes=30)
            event = {"WhatId": deal, "Subject": "Visit", "StartDateTime": start, "EndDateTime": start + HOUR, "OwnerId": self.active_user(b)}
            made = self.org.create("Event", event, by=self.active_user(b))
            self.tell(f"event {self.label(made)} from {start:%d %b %H:%M} was added to deal {self.label(deal)}")

    def change_task(self, a: int, b: int) -> None:
        """A task is finished, or moves to another deal or to an account."""
        deals = self.deals()
        tasks = self._activities("Task", deals)
        if tasks and deals:
            task = tasks[a % len(tasks)]
            accounts = self.ids("Account", 'not "IsDeleted"')
            values = [{"Status": "Completed"}, {"WhatId": deals[b % len(deals)]}, {"WhatId": accounts[b % len(accounts)]}][b % 3]
            self.org.update("Task", task, values, by=self.active_user(b))
            self.tell(f"task {self.label(task)}: {values}")

    def change_event(self, a: int, b: int) -> None:
        deals = self.deals()
        events = self._activities("Event", deals)
        if events and deals:
            event = events[a % len(events)]
            start = self.clock.now() + (b % 5 - 2) * DAY
            values = [{"WhatId": deals[b % len(deals)]}, {"StartDateTime": start, "EndDateTime": start + HOUR}][b % 2]
            self.org.update("Event", event, values, by=self.active_user(b))
            self.tell(f"event {self.label(event)}: {values}")

    def _activities(self, sobject: str, deals: list[str]) -> list[str]:
        if not deals:
            return []
        return self.ids(sobject, f"""not "IsDeleted" and ("WhatId" in ({', '.join(f"'{d}'" for d in deals)}) or "WhatId" not like '006%')""")

    def remove_task(self, a: int, b: int) -> None:
        self._remove("Task", a, b)

    def remove_event(self, a: int, b: int) -> None:
        self._remove("Event", a, b)

    def _remove(self, sobject: str, a: int, b: int) -> None:
        """Into the bin, out of it, or for good."""
        way = ["delete", "hard_delete", "undelete"][b % 3]
        which = {"delete": 'not "IsDeleted"', "hard_delete": "_deleted_with is null", "undelete": '"IsDeleted" and _deleted_with is null'}[way]
        records = self.ids(sobject, which)
        if records:
            record = records[a % len(records)]
            getattr(self.org, way)(sobject, record)
            self.tell(f"{way} of {sobject} {self.label(record)}")

    # --- acts: admins ---

    def drift(self, a: int, b: int) -> None:
        text = ["Amount * Probability / 110", "Amount / 2", "Amount * Probability / 100"][b % 3]
        if "Weighted_Amount__c" in self.org.objects["Opportunity"].fields:
            self.org.set_formula("Opportunity", "Weighted_Amount__c", text)
            self.tell(f"the formula of Weighted_Amount__c is {text} now; no stamp moved")

    def add_field(self, a: int, b: int) -> None:
        self.names += 1
        name = f"Extra_{self.names}__c"
        kind = ["string", "double", "boolean", "date"][b % 4]
        formula = "Amount / 3" if a % 5 == 0 and kind == "double" else None
        self.org.add_field("Opportunity", name, kind, formula=formula)
        self.tell(f"field {name} ({kind}{', a formula' if formula else ''}) was added")
        deals = self.deals()
        if deals and not formula:
            value = {"string": "new", "double": 7.5, "boolean": True, "date": "2026-05-01"}[kind]
            self._update(deals[a % len(deals)], {name: value})

    def hide_field(self, a: int, b: int) -> None:
        self._show("Opportunity", ["NextStep", "Region__c", "Description", "Win_Reason__c", "Weighted_Amount__c", *self._extra()], a, hidden=True)

    def unhide_field(self, a: int, b: int) -> None:
        hidden = [f.name for f in self.org.objects["Opportunity"].fields.values() if f.hidden]
        self._show("Opportunity", hidden, a, hidden=False)

    def _show(self, sobject: str, names: list[str], a: int, *, hidden: bool) -> None:
        if names:
            name = names[a % len(names)]
            self.org.hide_field(sobject, name, hidden=hidden)
            self.tell(f"{sobject}.{name} was {'hidden from' if hidden else 'shown to'} the user")

    def _extra(self) -> list[str]:
        return [name for name in self.org.objects["Opportunity"].fields if name.startswith("Extra_")]

    def add_stage(self, a: int, b: int) -> None:
        label = f"Gate {b}"
        if not self.org.rows('select 1 from "OpportunityStage" where "MasterLabel" = ?', [label]):
            self.org.add_stage(label, probability=b, forecast_category="Pipeline", api_name=[None, f"G{b}"][a % 2])
            self.tell(f"stage {label} was added")
        deals = self.deals()
        if deals and a % 3:
            api_name = self.org.rows('select "ApiName" from "OpportunityStage" where "MasterLabel" = ?', [label])[0][0]
            self._update(deals[a % len(deals)], {"StageName": api_name})

    def change_stage(self, a: int, b: int) -> None:
        stage = STAGES[a % 4]
        change: dict[str, Any] = [{"probability": 33}, {"is_active": bool(a % 2)}, {"master_label": f"{stage} {b}"}][b % 3]
        self.org.change_stage(stage, **change)
        self.tell(f"stage {stage}: {change}")

    def close_stage(self, a: int, b: int) -> None:
        """A stage is closed from now on, or open: its deals follow, and no stamp moves."""
        stage, closed = STAGES[a % 4], not b % 2
        self.org.change_stage(stage, is_closed=closed, is_won=False)
        self.tell(f"stage {stage} counts as {'closed' if closed else 'open'} now")

    def change_rate(self, a: int, b: int) -> None:
        if b % 3:
            self.org.set_rate("USD", 1 + b / 100)
            self.tell(f"the rate of USD is {1 + b / 100} now")
        else:
            day = (START + (a % 50 - 10) * DAY).date()
            self.org.set_dated_rate("USD", day, 1 + b / 100)
            self.tell(f"from {day} on the rate of USD is {1 + b / 100}")

    def change_type(self, a: int, b: int) -> None:
        """A record type is made, renamed or switched off, or a field gets another type."""
        types = self.ids("RecordType")
        self.names += 1
        if b % 3 == 0:
            self.org.add_record_type(f"Type {self.names}")
            self.tell(f"record type 'Type {self.names}' was made")
        elif b % 3 == 1:
            self.org.rename_record_type(types[a % len(types)], f"Type {self.names}")
            self.tell(f"record type {self.label(types[a % len(types)])} is called 'Type {self.names}' now")
        else:
            self.org.change_set_up("RecordType", types[a % len(types)], {"IsActive": bool(a % 2)})
            self.tell(f"record type {self.label(types[a % len(types)])} is {'' if a % 2 else 'not '}active")

    def retype_field(self, a: int, b: int) -> None:
        names = [name for name in ("Win_Reason__c", *self._extra()) if self.org.objects["Opportunity"].fields[name].stored]
        name, kind = names[a % len(names)], ["string", "double", "textarea", "picklist"][b % 4]
        self.org.change_type("Opportunity", name, kind, **({"length": 255} if kind == "textarea" else {}))
        self.tell(f"field {name} is of type {kind} now")

    def remove_field(self, a: int, b: int) -> None:
        names = ["MainCompetitors__c", *self._extra()]
        names = [name for name in names if name in self.org.objects["Opportunity"].fields]
        if names:
            self.org.remove_field("Opportunity", names[a % len(names)])
            self.tell(f"field {names[a % len(names)]} was removed")

    def clear_up(self, a: int, b: int) -> None:
        """The recycle bin is emptied, the log of deletions purged, or activities archived."""
        if b % 3 == 0:
            self.org.empty_recycle_bin(everything=True)
            self.tell("the recycle bin was emptied")
        elif b % 3 == 1:
            self.org.purge_delete_log(self.clock.now())
            self.tell("the log of deletions was purged")
        else:
            self.tell(f"{self.org.archive_activities([*self.ids('Task'), *self.ids('Event')][: 1 + a % 3])} activities were archived")

    # --- trouble ---

    def arm(self, kind: str, path: str | None, after: int, times: int) -> None:
        """Let the org answer wrongly when it is asked for the time after `after` requests that match `path`."""
        where: dict[str, Any] = {"path": path, "after": after}
        if kind == "expire":
            self.faults.arm("expire_tokens")
        elif kind == "job failed":
            self.faults.arm("job_failed", times=times, after=after % 4)
        elif kind == "403 limit":
            self.faults.arm("status", status=403, body=[{"message": DAILY_LIMIT[1], "errorCode": DAILY_LIMIT[0]}], times=times, **where)
        elif kind == "slow":
            self.faults.arm("slow", seconds=0.02, times=times, **where)
        elif kind in ("drop", "lost answer"):
            self.faults.arm("drop", applied=kind == "lost answer", times=times, **where)
        elif kind == "truncate":
            self.faults.arm("truncate", times=times, **where)
        else:
            self.faults.arm("status", status=int(kind), times=times, headers={"Retry-After": "0"} if kind == "429" else None, **where)
        self.tell(f"trouble is ahead: {kind}, {times} times, after {after} requests{' to ' + path if path else ''}")

    # --- syncs ---

    def config(self, share: float, **said: Any) -> str:
        version = f'api_version = "{self.version}"' if self.version else ""
        return CONFIG.format(url=self.ground.server.url, share=share, overlap=self.overlap, version=version, **said)

    def new_day(self, limit: int | None, left: int | None) -> None:
        self.org.daily_limit = limit or DAILY
        self.org._calls = 0
        if left is not None:
            self.org.use_calls(DAILY - left)

    def sync(
        self, *, flow: str = "sync", full: bool = False, api: str = "auto", quota: tuple[str, int] | None = None, kill: dict[str, Any] | None = None,
        streams: int = 1, bulk_from: int = 6,
    ) -> dict[str, Any]:  # fmt: skip
        """See World.run."""
        return self.run(flow, f"api {api}", full=full, quota=quota, kill=kill, config={"api": api}, streams=streams, bulk_from=bulk_from)

    def log_is_behind(self) -> bool:
        """Whether a record was deleted in this very minute: getDeleted ignores seconds, and names it from the next minute on."""
        minute = self.clock.now().replace(second=0, microsecond=0, tzinfo=None)
        return bool(self.org.rows("select 1 from simulator.deletion where deleted_at >= ? limit 1", [minute]))

    def differences(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        return differences(self.org, con, now=self.clock.now(), source=self.SOURCE)

    def jobs_left(self) -> list[str]:
        """Bulk query jobs that the org still keeps."""
        return [f"{job.id} ({job.state}): {job.object}" for job in self.org.jobs.all() if job.is_query]


# What may happen between two syncs.
ACTS = (
    "wait", "create", "edit", "edit_many", "back_and_forth", "delete", "undelete", "hard_delete", "late", "very_late", "hide_deal", "show_deal",
    "line_items", "merge", "rename_account", "new_account", "delete_account", "undelete_account", "person_changes", "add_role", "change_role",
    "remove_role", "add_task", "add_event", "change_task", "change_event", "remove_task", "remove_event", "drift", "add_field", "hide_field",
    "unhide_field", "retype_field", "remove_field", "add_stage", "change_stage", "close_stage", "change_rate", "change_type", "clear_up",
)  # fmt: skip
# And while one reads.
MEANWHILE = (
    "edit", "create", "delete", "undelete", "hard_delete", "merge", "add_role", "remove_role", "add_task", "change_task", "hide_field",
    "unhide_field", "drift", "expire",
)  # fmt: skip
