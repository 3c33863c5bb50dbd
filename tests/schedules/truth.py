"""What a warehouse must hold, computed from the simulated org's own tables, and how a real one differs from it.

Nothing of the code under test is used here: the definitions are those of docs/sync.md and of the column comments, written again.
Not compared, because no sync can know it without reading all records again (docs/sync.md says so): values of calculated fields of
closed deals, and what a hidden field would say.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
from schedules.kept import ZONE, Differences, invariants, pushes, stage_moves, table

from connectors.simulator.salesforce import SalesforceOrg

HOME = "EUR"
COMPOUND = {"address", "location"}
NOT_READ = {"AgeInDays", "LastStageChangeInDays", "LastViewedDate", "LastReferencedDate"}  # they move by themselves every day
# Fields of a deal with a column of their own, which core.opportunity.custom does not repeat.
COLUMNS = {
    "Id", "Name", "AccountId", "OwnerId", "RecordTypeId", "Type", "StageName", "IsClosed", "IsWon", "IsDeleted", "Amount", "CurrencyIsoCode",
    "Probability", "ForecastCategoryName", "ForecastCategory", "CreatedDate", "CloseDate", "LastStageChangeDate", "Description", "NextStep",
    "SystemModstamp",
}  # fmt: skip
OF_STAGE = {"IsClosed", "IsWon"}  # they follow the stage's definition, without a stamp: core.opportunity has what holds, raw what was delivered
CHILDREN = {
    "OpportunityContactRole": ("salesforce_opportunity_contact_role", ("OpportunityId", "ContactId", "Role")),
    "Task": ("salesforce_task", ("WhatId", "Subject", "Status", "ActivityDate", "OwnerId", "IsClosed", "CompletedDateTime")),
    "Event": ("salesforce_event", ("WhatId", "Subject", "StartDateTime", "EndDateTime", "OwnerId", "ActivityDate")),
}
HISTORY = {
    "OpportunityHistory": ("salesforce_opportunity_history", ("OpportunityId", "StageName", "Amount", "CloseDate", "Probability", "CreatedDate")),
    "OpportunityFieldHistory": ("salesforce_opportunity_field_history", ("OpportunityId", "Field", "CreatedDate")),
}
def text(value: Any) -> str | None:
    """A value as raw.*.payload writes it: everything is text, empty is nothing."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal | float):
        plain = f"{Decimal(str(value)):f}"
        return (plain.rstrip("0").rstrip(".") if "." in plain else plain) or "0"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return value.isoformat() if isinstance(value, date) else str(value).replace("\r\n", "\n")


def utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.replace(tzinfo=UTC)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZONE).astimezone(UTC)


def shown(org: SalesforceOrg, sobject: str) -> list[Any]:
    """The fields that the user of the API may see and that are read."""
    return [f for f in org.objects[sobject].visible() if f.type not in COMPOUND and f.name not in NOT_READ]


def records(org: SalesforceOrg, sobject: str, where: str = "true", only: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Records that the user may see, by id, each visible field with its present value; calculated ones are calculated."""
    context, wanted = org.context(), {"Id", *only}
    fields = [f for f in shown(org, sobject) if not only or f.name in wanted]
    selected = ", ".join(f'{context.value(f, "t")} as "{f.name}"' for f in fields)
    names = [f.name for f in fields]
    seen = f"""t."Id" not in (select id from simulator.unshared where sobject = '{sobject}')"""
    found = (dict(zip(names, row, strict=True)) for row in org.rows(f'select {selected} from "{sobject}" t where {seen} and {where}'))
    return {record["Id"]: record for record in found}


def has(con: duckdb.DuckDBPyConnection, schema: str, name: str) -> bool:
    return bool(con.execute("select 1 from duckdb_tables() where schema_name = ? and table_name = ?", [schema, name]).fetchall())


def differences(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, *, now: datetime, source: str) -> list[str]:
    """Everything that the warehouse says otherwise than the org, in sentences; nothing when they agree."""
    found = Differences()
    live = records(org, "Opportunity", 'not t."IsDeleted"')
    ours = {row["opportunity_id"]: row for row in table(con, "select * from core.opportunity where source = ?", source)}
    for missing in sorted(live.keys() - ours.keys()):
        found.append(f"core.opportunity {missing}: is in the org, not in the warehouse")
    for id_, row in sorted(ours.items()):
        found.note("core.opportunity.is_deleted", id_, id_ not in live, row["is_deleted"])
        found.note("core.opportunity.deleted_at is set", id_, id_ not in live, row["deleted_at"] is not None)
    both = sorted(live.keys() & ours.keys())
    _payloads(org, con, found, live, both, source)
    _columns(org, con, found, live, ours, both, now=now, source=source)
    _children(org, con, found, set(both), source)
    _activities(org, con, found, ours, both, now=now, source=source)
    _people(org, con, found, source)
    _stages(org, con, found, ours, both, source)
    _versions(org, con, found, both, source)
    _fields(org, con, found, source)
    invariants(con, found, "salesforce")
    return found


def _payloads(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, live: Any, both: list[str], source: str) -> None:
    """Every visible field of every live deal, in raw and in custom."""
    fields = shown(org, "Opportunity")
    raw = dict(con.execute("select id, payload::varchar from raw.salesforce_opportunity where source = ? and not is_deleted", [source]).fetchall())
    custom = dict(con.execute("select opportunity_id, custom::varchar from core.opportunity where source = ?", [source]).fetchall())
    for id_ in both:
        payload, rest = json.loads(raw.get(id_) or "{}"), json.loads(custom[id_] or "{}")
        for f in fields:
            if (f.sql is not None and live[id_]["IsClosed"]) or f.name in OF_STAGE:
                continue
            said = text(live[id_][f.name])
            found.note(f"raw Opportunity.{f.name}", id_, said, payload.get(f.name))
            own = f.name in COLUMNS or f.name.startswith("Plumbline_")
            found.note(f"core.opportunity.custom.{f.name}", id_, None if own else said, rest.get(f.name))


def _columns(
    org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, live: Any, ours: Any, both: list[str], *, now: datetime, source: str
) -> None:
    """core.opportunity, column by column, and what history says: stage events, closings, pushes."""
    visible = {f.name for f in shown(org, "Opportunity")}
    accounts = dict(org.rows('select "Id", "Name" from "Account"'))
    users = {row[0]: row[1:] for row in org.rows('select "Id", trim(concat_ws(\' \', "FirstName", "LastName")), "IsActive", "UserType" from "User"')}
    types = dict(org.rows('select "Id", "Name" from "RecordType"'))
    pipelines = {row["pipeline_id"]: row for row in table(con, "select * from core.pipeline where source = ?", source)}
    for id_, name, active in org.rows('select "Id", "Name", "IsActive" from "RecordType"'):
        row = pipelines.get(id_)
        found.note("core.pipeline", id_, (name, name, active), row and (row["pipeline"], row["label"], row["is_active"]))
    stages = {row[0]: row[1:] for row in org.rows('select "ApiName", "MasterLabel", "DefaultProbability", "IsClosed" from "OpportunityStage"')}
    units = Units(org)
    contacts = defaultdict(set)
    for deal, contact in org.rows('select "OpportunityId", "ContactId" from "OpportunityContactRole" where not "IsDeleted"'):
        contacts[deal].add(contact)
    history = defaultdict(list)
    for deal, at, stage, close in org.rows(
        'select "OpportunityId", "CreatedDate", "StageName", "CloseDate" from "OpportunityHistory" order by "CreatedDate", "Id"'
    ):
        history[deal].append((utc(at), stage, close))
    events = defaultdict(list)
    for row in table(con, """select e.*, o.opportunity_id from core.stage_event e join core.opportunity o using (opportunity_key)
                             where o.source = ? order by e."at" """, source):  # fmt: skip
        events[row["opportunity_id"]].append(row)
    steps = dict(org.rows("""select "OpportunityId", max("CreatedDate") from "OpportunityFieldHistory" where "Field" = 'NextStep' group by 1"""))
    for id_ in both:
        deal, row = live[id_], ours[id_]
        moves = stage_moves([(at, stage) for at, stage, _ in history[id_]])
        # A move and the same move again within a second are one: the second is all that either side knows of the instant.
        told = {(e["at"], e["from_crm_stage"], e["to_crm_stage"]) for e in events[id_]}
        found.note("core.stage_event", id_, sorted(set(moves), key=repr), sorted(told, key=repr))
        found.note("core.stage_event, rows", id_, len(told), len(events[id_]))
        closed = {name: bool(stage[2]) for name, stage in stages.items()}
        closings = [at for at, before, after in moves if closed.get(after, False) and not closed.get(before, False)]
        label, default, _ = stages.get(deal["StageName"], (deal["StageName"], None, None))
        owner = users.get(deal["OwnerId"], (None, None, None))
        category = (deal.get("ForecastCategoryName") or "").lower().replace(" ", "_") or None
        expected: dict[str, Any] = {
            "name": deal["Name"], "account_id": deal["AccountId"], "account_name": accounts.get(deal["AccountId"]), "owner_id": deal["OwnerId"],
            "owner_name": owner[0], "owner_active": owner[1] and owner[2] in ("Standard", "PowerPartner"),
            "pipeline": types.get(deal["RecordTypeId"], "default"), "pipeline_id": deal["RecordTypeId"], "type": deal.get("Type"),
            "crm_stage": deal["StageName"], "crm_stage_label": label, "is_closed": deal["IsClosed"], "is_won": deal["IsWon"],
            "amount": deal["Amount"], "currency": deal["CurrencyIsoCode"], "probability": _hundredth(deal["Probability"]),
            "forecast_category": category, "created_at": utc(deal["CreatedDate"]), "close_date": deal["CloseDate"],
            "crm_modified_at": utc(deal["SystemModstamp"]), "stage_default_probability": _hundredth(default),
            "stage_entered_at": utc(deal["LastStageChangeDate"]) or moves[-1][0],
            "closed_at": (closings[-1] if closings else None) if deal["IsClosed"] else None,
            "contact_count": len(contacts[id_]), "close_date_pushes": pushes([(at, closing) for at, _, closing in history[id_]], moves, closed),
            "description": text(deal.get("Description")), "next_step": text(deal.get("NextStep")),
            "lost_reason": deal.get("Loss_Reason__c"), "has_line_items": deal["HasOpportunityLineItem"],
        }  # fmt: skip
        if id_ in steps and "NextStep" in visible:
            expected["next_step_changed_at"] = utc(steps[id_])
        hidden_by = {"description": "Description", "next_step": "NextStep", "type": "Type", "lost_reason": "Loss_Reason__c"}
        for name, value in expected.items():
            if hidden_by.get(name, "Id") in visible:
                found.note(f"core.opportunity.{name}", id_, value, row[name])
        rate = units.rate(deal["CurrencyIsoCode"], deal["CloseDate"])
        converted = None if deal["Amount"] is None or rate is None else Decimal(deal["Amount"]) * rate
        if converted is None or row["amount_home"] is None or abs(converted - row["amount_home"]) > Decimal("0.011"):
            found.note("core.opportunity.amount_home", id_, converted, row["amount_home"])


def _hundredth(percent: Any) -> Decimal | None:
    return None if percent is None else Decimal(percent) / 100


def _children(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, deals: set[str], source: str) -> None:
    """Records that belong to live deals: which there are, and what they say."""
    for sobject, (name, only) in (CHILDREN | HISTORY).items():
        told = records(org, sobject, 'not t."IsDeleted"' if sobject in CHILDREN else "true", only)
        theirs = {id_: record for id_, record in told.items() if record[only[0]] in deals}
        ours = {row["id"]: row for row in table(con, f"select * from raw.{name} where source = ?", source)}
        for id_ in sorted(theirs.keys() - {i for i, row in ours.items() if not row["is_deleted"] or sobject in HISTORY}):
            found.append(f"raw {sobject} {id_} of {theirs[id_][only[0]]}: is in the org, not in the warehouse")
        for id_, row in sorted(ours.items()):
            if id_ not in theirs:
                # Of a deal that lives: then the record itself is gone, or is another deal's or nobody's by now.
                if row["parent_id"] in deals and not row["is_deleted"] and sobject in CHILDREN:
                    found.append(f"raw {sobject} {id_}: is not of {row['parent_id']} any more in the org, but in the warehouse")
                continue
            payload = json.loads(row["payload"])
            found.note(f"raw {sobject}.parent_id", id_, theirs[id_][only[0]], row["parent_id"])
            for f in only:
                found.note(f"raw {sobject}.{f}", id_, text(theirs[id_].get(f)), payload.get(f))
    roles = defaultdict(list)
    for id_, deal, contact, role, primary in org.rows(
        'select "Id", "OpportunityId", "ContactId", "Role", "IsPrimary" from "OpportunityContactRole" where not "IsDeleted"'
    ):
        if deal in deals:
            roles[f"{source}:{deal}", contact].append((not primary, role is None, id_, role))
    theirs_ = {key: min(found_)[3] for key, found_ in roles.items()}
    alive = "from core.contact_role semi join (from core.opportunity where not is_deleted) using (opportunity_key)"
    ours_ = {(row["opportunity_key"], row["contact_id"]): row["role"] for row in table(con, alive)}
    found.note("core.contact_role", "", dict(sorted(theirs_.items())), dict(sorted(ours_.items())))


def _activities(
    org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, ours: Any, both: list[str], *, now: datetime, source: str
) -> None:
    """core.activity, and the last and next activity of each deal."""
    today = now.astimezone(ZONE).date()
    theirs: dict[str, tuple[Any, ...]] = {}
    for id_, what, due, done, completed, subject, owner in org.rows(
        'select "Id", "WhatId", "ActivityDate", "IsClosed", "CompletedDateTime", "Subject", "OwnerId" from "Task" where not "IsDeleted"'
    ):
        at = utc(completed) if done else midnight(due) if due else None
        theirs[f"{source}:{id_}"] = (f"{source}:{what}", "task", at, None, due, done, subject, owner)
    for id_, what, start, end, subject, owner in org.rows(
        'select "Id", "WhatId", "StartDateTime", "EndDateTime", "Subject", "OwnerId" from "Event" where not "IsDeleted"'
    ):
        starts, ends = utc(start), utc(end)
        theirs[f"{source}:{id_}"] = (f"{source}:{what}", "event", ends, starts, starts.astimezone(ZONE).date(), ends <= now, subject, owner)
    deals = {f"{source}:{id_}" for id_ in both}
    theirs = {key: row for key, row in theirs.items() if row[0] in deals}
    kept = {
        row["activity_key"]: tuple(row[n] for n in ("opportunity_key", "kind", "at", "starts_at", "due_date", "is_done", "subject", "owner_id"))
        for row in table(con, "select * from core.activity")
        if row["opportunity_key"] in deals
    }
    for key in sorted(theirs.keys() | kept.keys()):
        found.note("core.activity", key, theirs.get(key), kept.get(key))
    for id_ in both:
        mine = [row for row in theirs.values() if row[0] == f"{source}:{id_}"]
        last = [at for _, _, at, _, _, done, *_ in mine if done and at is not None and at <= now]
        ahead = [row for row in mine if row[4] is not None and row[4] >= today and (row[1] == "event" or not row[5])]
        following = [starts or at for _, _, at, starts, *_ in ahead]
        found.note("core.opportunity.last_activity_at", id_, max(last, default=None), ours[id_]["last_activity_at"])
        found.note("core.opportunity.next_activity_at", id_, min(following, default=None), ours[id_]["next_activity_at"])


def _people(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, source: str) -> None:
    """Owners, and accounts: names, and who was merged into whom. An account purged from the bin has no deals left to show it."""
    roles = dict(org.rows('select "Id", "Name" from "UserRole"'))
    theirs = {
        row[0]: (row[1], row[2], row[3], roles.get(row[4]))
        for row in org.rows('select "Id", trim(concat_ws(\' \', "FirstName", "LastName")), "IsActive", "ManagerId", "UserRoleId" from "User"')
    }
    kept = {row["owner_id"]: (row["name"], row["is_active"], row["manager_id"], row["team"]) for row in
            table(con, "select * from core.owner where source = ?", source)}  # fmt: skip
    for id_ in sorted(theirs.keys() | kept.keys()):
        found.note("core.owner", id_, theirs.get(id_), kept.get(id_))
    accounts = {
        row[0]: (row[1], row[2], f"{source}:{row[3]}" if row[3] else None)
        for row in org.rows('select "Id", "Name", "IsDeleted", "MasterRecordId" from "Account"')
    }
    kept_ = {row["account_id"]: (row["name"], row["is_deleted"], row["merged_into"]) for row in
             table(con, "select * from core.account where source = ?", source)}  # fmt: skip
    for id_ in sorted(accounts):
        if id_ in kept_ or not accounts[id_][1]:  # what went before it was ever read leaves no trace
            found.note("core.account", id_, accounts[id_], kept_.get(id_))


def _stages(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, ours: Any, both: list[str], source: str) -> None:
    """The stage map knows what the org defines, and deals are in the stage that the map in force says; rates as the org has them."""
    kept = {(row["pipeline"], row["crm_stage"]): row for row in table(con, "select * from core.stage_map where source = ?", source)}
    pipelines = {ours[id_]["pipeline"] for id_ in both}
    been = {(ours[deal]["pipeline"], stage) for deal, stage in
            org.rows('select distinct "OpportunityId", "StageName" from "OpportunityHistory"') if deal in both}  # fmt: skip
    for api, label, probability, closed, won, active in org.rows(
        'select "ApiName", "MasterLabel", "DefaultProbability", "IsClosed", "IsWon", "IsActive" from "OpportunityStage"'
    ):
        for pipeline in sorted(pipelines):
            row = kept.get((pipeline, api))
            theirs = (label, _hundredth(probability), closed, won, active)
            said = row and (row["label"], row["probability"], row["is_closed"], row["is_won"], row["is_active"])
            if row is None and not active and (pipeline, api) not in been:
                continue  # retired before it was ever read: no process offers it, and no deal was ever in it
            found.note("core.stage_map", f"{pipeline}/{api}", theirs, said)
    for id_ in both:
        row = ours[id_]
        mapped = kept[row["pipeline"], row["crm_stage"]]["stage"] if (row["pipeline"], row["crm_stage"]) in kept else None
        stage = "closed_won" if row["is_won"] else "closed_lost" if row["is_closed"] else mapped
        if stage in ("closed_won", "closed_lost") and not row["is_closed"]:
            stage = "unmapped"
        found.note("core.opportunity.stage", id_, stage, row["stage"])
    units = Units(org)
    rates = table(con, "select * from core.exchange_rate where source = ? order by currency, valid_from", source)
    found.note("core.exchange_rate", "currencies", sorted(units.codes - {HOME}), sorted({row["currency"] for row in rates}))
    for row in rates:
        theirs_ = units.rate(row["currency"], row["valid_from"])
        if theirs_ is None or abs(theirs_ - row["rate"]) > Decimal("1e-9"):
            found.note("core.exchange_rate", f"{row['currency']} from {row['valid_from']}", theirs_, row["rate"])


class Units:
    """Units of each currency per unit of the corporate one: the dated rate of a day where there is one, else the flat one."""

    def __init__(self, org: SalesforceOrg) -> None:
        self.flat = {code: Decimal(str(rate)) for code, rate in org.rows('select "IsoCode", "ConversionRate" from "CurrencyType"')}
        self.dated = org.rows('select "IsoCode", "StartDate", "NextStartDate", "ConversionRate" from "DatedConversionRate"')
        self.codes = set(self.flat)

    def on(self, code: str, day: date) -> Decimal | None:
        return next((Decimal(str(rate)) for of, since, until, rate in self.dated if of == code and since <= day < until), self.flat.get(code))

    def rate(self, code: str, day: date) -> Decimal | None:
        """Units of the home currency per unit of another."""
        theirs, home = self.on(code, day), self.on(HOME, day)
        return None if theirs is None or home is None else home / theirs


def _versions(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, both: list[str], source: str) -> None:
    """What a deal was, from its first day on: as OpportunityHistory says at the end of each second of which it tells anything."""
    versions = defaultdict(list)
    for row in table(con, "select * from core.opportunity_version order by opportunity_key, valid_from"):
        versions[row["opportunity_key"]].append(row)
    created = dict(org.rows('select "Id", "CreatedDate" from "Opportunity"'))
    told: dict[tuple[str, datetime], Any] = {}
    for deal, at, *state in org.rows(
        """select "OpportunityId", "CreatedDate", "StageName", "Amount", "CloseDate", "Probability" from "OpportunityHistory"
           order by "CreatedDate", "Id" """
    ):
        told[deal, at.replace(tzinfo=UTC)] = (*state[:3], _hundredth(state[3]))
    for id_ in both:
        mine = versions[f"{source}:{id_}"]
        found.note("core.opportunity_version begins", id_, utc(created[id_]), mine[0]["valid_from"] if mine else None)
        for (deal, at), state in told.items():
            if deal == id_:
                then = next((v for v in mine if v["valid_from"] <= at and (v["valid_to"] is None or at < v["valid_to"])), None)
                said = then and (then["crm_stage"], then["amount"], then["close_date"], then["probability"])
                found.note(f"core.opportunity_version at {at:%d %b %H:%M:%S}", id_, state, said)


def _fields(org: SalesforceOrg, con: duckdb.DuckDBPyConnection, found: Differences, source: str) -> None:
    """core.field lists what the user may see of a deal, as the org describes it now."""
    theirs = {f.name: (f.type, f.label) for f in shown(org, "Opportunity")}
    kept = {row["name"]: (row["type"], row["label"]) for row in
            table(con, "select * from core.field where source = ? and object = 'Opportunity'", source)}  # fmt: skip
    for name in sorted(theirs.keys() | kept.keys()):
        found.note("core.field", name, theirs.get(name), kept.get(name))
    lost = {row["name"] for row in table(con, "select name from core.field_lost where source = ? and object = 'Opportunity'", source)}
    for name in sorted(lost & theirs.keys()):
        found.append(f"core.field_lost {name}: is visible in the org")
