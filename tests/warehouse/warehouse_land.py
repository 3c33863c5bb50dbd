"""Hand-made landed pulls, in the forms in which Salesforce and HubSpot deliver."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from connectors.landing import Field, LandedFile, Landing, Manifest, Pull

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ORG = {
    "org_id": "00D000000000001AAA", "timezone": "Europe/Berlin", "currency": "EUR", "fiscal_year_start_month": 2,
    "record_url": "https://acme.example/{id}",
}
PORTAL = {
    "org_id": "42", "timezone": "Europe/Berlin", "currency": "EUR", "record_url": "https://app.hubspot.com/contacts/42/record/0-3/{id}",
}

ADA, BO = "005000000000001AAA", "005000000000002AAA"
ACCOUNT, OTHER_ACCOUNT = "001000000000001AAA", "001000000000002AAA"

TYPES = {
    "Amount": "currency", "Probability": "percent", "CreatedDate": "datetime", "SystemModstamp": "datetime", "LastModifiedDate": "datetime",
    "LastStageChangeDate": "datetime", "CloseDate": "date", "IsClosed": "boolean", "IsWon": "boolean", "IsDeleted": "boolean",
    "Description": "textarea", "Seats__c": "double", "Weighted__c": "currency", "Kickoff__c": "datetime", "ConversionRate": "double",
}
FORMULAS = {"Weighted__c"}


def stamp(at: datetime, zone: str = "+0000") -> str:
    """An instant as Salesforce's REST API writes it; `zone` Z as the Bulk API does."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}{zone}"


def hs(at: datetime) -> str:
    """An instant as HubSpot writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def opportunity(number: int, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    """A Salesforce opportunity as REST delivers it: typed, every selected field there, null or not."""
    record: dict[str, Any] = {
        "attributes": {"type": "Opportunity", "url": f"/services/data/v64.0/sobjects/Opportunity/{opp_id(number)}"},
        "Id": opp_id(number), "IsDeleted": False, "AccountId": ACCOUNT, "Name": f"Deal {number}", "Description": None,
        "StageName": "Qualification", "Amount": 1000.0 * number, "Probability": 10.0, "CloseDate": "2026-12-31", "Type": "New Business",
        "NextStep": None, "IsClosed": False, "IsWon": False, "ForecastCategoryName": "Pipeline", "CurrencyIsoCode": "EUR",
        "OwnerId": ADA, "RecordTypeId": None, "CreatedDate": stamp(at - timedelta(days=30)),
        "LastStageChangeDate": None, "LastActivityDate": None, "LastModifiedDate": stamp(at), "SystemModstamp": stamp(at),
        "Loss_Reason__c": None, "Seats__c": None, "Kickoff__c": None, "Weighted__c": 100.0 * number, "Plumbline_Status__c": None,
        "Plumbline_Score__c": None,
    }
    return record | fields


def opp_id(number: int) -> str:
    return f"006{number:012d}AAA"


def history(number: int, seq: int, at: datetime, stage: str, close_date: str = "2026-12-31", amount: float = 1000.0) -> dict[str, Any]:
    return {
        "Id": f"008{number:06d}{seq:06d}AAA", "OpportunityId": opp_id(number), "StageName": stage, "Amount": amount,
        "CloseDate": close_date, "Probability": 10.0, "ForecastCategory": "Pipeline", "CreatedDate": stamp(at),
        "SystemModstamp": stamp(at), "IsDeleted": False,
    }


# MasterLabel, DefaultProbability, IsClosed, IsWon
STAGES = [
    ("Prospecting", 10, False, False), ("Qualification", 10, False, False), ("Needs Analysis", 20, False, False),
    ("Proposal/Price Quote", 75, False, False), ("Negotiation/Review", 90, False, False), ("Closed Won", 100, True, True),
    ("Closed Lost", 0, True, False),
]


def stage_rows(*more: tuple[str, int, bool, bool]) -> list[dict[str, Any]]:
    return [
        {
            "Id": f"01J{i:012d}AAA", "MasterLabel": name, "ApiName": name, "IsActive": True, "IsClosed": closed, "IsWon": won,
            "SortOrder": i + 1, "DefaultProbability": float(probability), "ForecastCategoryName": "Pipeline",
            "SystemModstamp": stamp(NOON - timedelta(days=900)),
        }
        for i, (name, probability, closed, won) in enumerate([*STAGES, *more])
    ]


LONG_AGO = "2024-01-01T00:00:00.000+0000"


def user(key: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "Id": key, "Name": name, "Email": f"{name.partition(' ')[0].lower()}@acme.example", "IsActive": True, "UserType": "Standard",
        "ManagerId": None, "UserRoleId": None, "SystemModstamp": LONG_AGO,
    } | fields


def account(key: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "Id": key, "Name": name, "Industry": "Energy", "NumberOfEmployees": 120, "MasterRecordId": None, "IsDeleted": False,
        "SystemModstamp": LONG_AGO,
    } | fields


USERS = [user(ADA, "Ada Seller"), user(BO, "Bo Gone", IsActive=False)]
ACCOUNTS = [account(ACCOUNT, "Nordwind GmbH"), account(OTHER_ACCOUNT, "Südwind AG")]
WHOLE = {"OpportunityStage", "User", "UserRole", "RecordType", "CurrencyType", "DatedConversionRate", "Organization"}


class SalesforcePull:
    """One pull being written. `full` objects are complete; small objects that are read whole each time always are."""

    def __init__(self, root: Path, run: int, *, source: str = "sales", full: bool = False, org: Mapping[str, Any] = ORG) -> None:
        self.source, self.run_id, self.full, self.org = source, f"20261120T{run:06d}-0000", full, dict(org)
        self.landing = Landing(root, source, self.run_id)
        self.objects: list[str] = []

    def add(
        self, name: str, records: Sequence[Mapping[str, Any]], *, form: str = "json_array", watermark: datetime | None = NOON,
        per_file: int = 2000,
    ) -> SalesforcePull:
        full = self.full or name in WHOLE
        manifest = Manifest(self.source, "salesforce", name, "Id", "full" if full else "incremental", complete=full, watermark=watermark)
        directory = self.landing.object_directory(name)
        first = records[0] if records else opportunity(0) if name == "Opportunity" else {"Id": ""}  # described also when nothing changed
        names = [key for key, value in first.items() if key != "attributes" and not isinstance(value, dict)]
        manifest.fields = [Field(n, TYPES.get(n, "string"), custom=n.endswith("__c"), calculated=n in FORMULAS) for n in names]
        for i in range(0, len(records), per_file):
            part = records[i : i + per_file]
            data, columns = (orjson.dumps(part), []) if form == "json_array" else as_csv(part)
            file = directory / f"part-{i:05d}.{'json' if form == 'json_array' else 'csv'}"
            file.write_bytes(data)
            manifest.files.append(LandedFile(file.name, form, len(part), len(data), columns))  # type: ignore[arg-type]
        return self._finish(manifest)

    def deleted(self, ids: Mapping[str, datetime]) -> SalesforcePull:
        manifest = Manifest(self.source, "salesforce", "Opportunity.deleted", "id", "incremental", watermark=NOON)
        if ids:
            data = orjson.dumps([{"id": key, "deletedDate": stamp(at)} for key, at in ids.items()])
            (self.landing.object_directory("Opportunity.deleted") / "part-00000.json").write_bytes(data)
            manifest.files = [LandedFile("part-00000.json", "json_array", len(ids), len(data))]
        return self._finish(manifest)

    def refused(self, name: str) -> SalesforcePull:
        return self._finish(Manifest(self.source, "salesforce", name, "Id", "full", notice="not read: the user may not"))

    def _finish(self, manifest: Manifest) -> SalesforcePull:
        self.landing.finish_object(manifest)
        self.objects.append(manifest.object)
        return self

    def done(self) -> Path:
        pull = Pull(self.source, "salesforce", self.run_id, self.full, self.objects, self.org)
        return self.landing.finish(pull)


def as_csv(records: Sequence[Mapping[str, Any]]) -> tuple[bytes, list[str]]:
    """Records as the Bulk API delivers them: text, quoted, null as nothing, instants with Z, parents as Parent.Field."""

    def text(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str) and value.endswith("+0000"):
            return value.replace("+0000", "Z")
        return str(value)

    def flatten(record: Mapping[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in record.items():
            if isinstance(value, dict) and key != "attributes":
                flat |= {f"{key}.{name}": inner for name, inner in value.items() if name != "attributes"}
            elif key != "attributes":
                flat[key] = value
        return flat

    flat = [flatten(record) for record in records]
    columns = list(flat[0])
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[text(r[c]) for c in columns] for r in flat])
    return out.getvalue().encode(), columns


def sales(
    root: Path, run: int, deals: Iterable[Mapping[str, Any]], *, full: bool = False, form: str = "json_array", source: str = "sales",
    **objects: Any,
) -> Path:
    """A Salesforce pull with the objects that every org has; `objects` adds or replaces some of them."""
    pull = SalesforcePull(root, run, source=source, full=full)
    pull.add("Opportunity", list(deals), form=form)
    pull.deleted(objects.pop("deleted", {}))
    standard = {
        "OpportunityHistory": [], "OpportunityFieldHistory": [], "OpportunityContactRole": [], "Task": [], "Event": [], "Account": ACCOUNTS,
        "User": USERS, "UserRole": [], "RecordType": [], "OpportunityStage": stage_rows(),
    }
    for name, records in (standard | objects).items():
        if records is None:
            pull.refused(name)
        else:
            pull.add(name, records)
    return pull.done()


# HubSpot ------------------------------------------------------------------------------------------------------------------------

DEFAULT_STAGES = [
    ("appointmentscheduled", "Appointment Scheduled", 0.2, False), ("qualifiedtobuy", "Qualified To Buy", 0.4, False),
    ("presentationscheduled", "Presentation Scheduled", 0.6, False), ("decisionmakerboughtin", "Decision Maker Bought-In", 0.8, False),
    ("contractsent", "Contract Sent", 0.9, False), ("closedwon", "Closed Won", 1.0, True), ("closedlost", "Closed Lost", 0.0, True),
]


def pipeline(
    key: str = "default", label: str = "Sales Pipeline", stages: Sequence[tuple[str, str, float, bool]] = DEFAULT_STAGES
) -> dict[str, Any]:
    return {
        "id": key, "label": label, "displayOrder": 0, "archived": False, "updatedAt": "2024-01-01T00:00:00Z",
        "stages": [
            {"id": i, "label": name, "displayOrder": n, "metadata": {"probability": str(p), "isClosed": str(closed).lower()}}
            for n, (i, name, p, closed) in enumerate(stages)
        ],
    }


def deal(
    number: int, at: datetime = NOON, *, contacts: Sequence[str] = (), companies: Sequence[str] = (), **properties: Any
) -> dict[str, Any]:
    """A HubSpot deal as a listing delivers it: every property a string or null."""
    record: dict[str, Any] = {
        "id": str(number),
        "properties": {
            "dealname": f"Deal {number}", "amount": str(1000 * number), "amount_in_home_currency": str(1000 * number),
            "deal_currency_code": "EUR", "closedate": "2026-12-30T23:00:00Z", "createdate": hs(at - timedelta(days=30)),
            "hs_createdate": hs(at - timedelta(days=30)),
            "dealstage": "qualifiedtobuy", "pipeline": "default", "dealtype": "newbusiness", "description": None, "hubspot_owner_id": "7",
            "hs_next_step": None, "hs_lastmodifieddate": hs(at), "hs_object_id": str(number),
            "hs_deal_stage_probability": "0.4000000059604644775390625", "hs_manual_forecast_category": None, "hs_is_closed": "false",
            "hs_is_closed_won": "false", "hs_merged_object_ids": None, "hs_v2_date_entered_current_stage": None, "notes_last_updated": None,
            "notes_next_activity_date": None, "num_associated_contacts": str(len(contacts)), "closed_lost_reason": None,
            "plumbline_status": None, "plumbline_score": None,
        } | properties,
        "createdAt": hs(at - timedelta(days=30)), "updatedAt": hs(at), "archived": False,
    }  # fmt: skip
    if contacts or companies:
        record["associations"] = {}
    if contacts:
        record["associations"]["contacts"] = {"results": [{"id": c, "type": "deal_to_contact"} for c in contacts]}
    if companies:  # the primary company is there twice, once by each type
        results = [{"id": companies[0], "type": "deal_to_company"}, *({"id": c, "type": "deal_to_company_unlabeled"} for c in companies)]
        record["associations"]["companies"] = {"results": results}
    return record


def past(number: int, **histories: Sequence[tuple[datetime, str]]) -> dict[str, Any]:
    """A line of deals.history. HubSpot gives the newest value first."""

    def entry(at: datetime, value: str) -> dict[str, Any]:
        return {"value": value, "timestamp": hs(at), "sourceType": "CRM_UI", "sourceId": "userId:1", "updatedByUserId": 1}

    newest_first = {name: [entry(*pair) for pair in reversed(values)] for name, values in histories.items()}
    return {"id": str(number), "propertiesWithHistory": newest_first}


HS_OWNERS = [
    {"id": "7", "email": "cleo@acme.example", "firstName": "Cleo", "lastName": "Maker", "userId": 71, "type": "PERSON", "archived": False,
     "teams": [{"id": "1", "name": "North", "primary": True}], "createdAt": "2024-01-01T00:00:00Z", "updatedAt": "2024-01-01T00:00:00Z"},
    {"id": "8", "email": "dan@acme.example", "firstName": "Dan", "lastName": "Left", "type": "PERSON", "archived": True,
     "createdAt": "2024-01-01T00:00:00Z", "updatedAt": "2024-01-01T00:00:00Z"},
]  # fmt: skip


def company(key: str, name: str, at: datetime = NOON, **properties: Any) -> dict[str, Any]:
    values = {"name": name, "industry": "ENERGY", "numberofemployees": "12", "hs_merged_object_ids": None, "hs_lastmodifieddate": hs(at)}
    return {"id": key, "properties": values | properties, "createdAt": hs(at), "updatedAt": hs(at), "archived": False}


def inbound(
    root: Path, run: int, deals: Iterable[Mapping[str, Any]], *, full: bool = False, org: Mapping[str, Any] = PORTAL,
    calculated: Sequence[str] = (), types: Mapping[str, str] | None = None, **objects: Sequence[Mapping[str, Any]] | None,
) -> Path:
    """A HubSpot pull. types: of properties of deals that are no strings.
    objects: archived, gone, history, associations, companies, owners, pipelines, properties, rates."""
    run_id = f"20261120T{run:06d}-0000"
    landing = Landing(root, "inbound", run_id)
    names = []
    given: dict[str, Sequence[Mapping[str, Any]] | None] = {
        "owners": objects.get("owners", HS_OWNERS), "pipelines": objects.get("pipelines", [pipeline()]),
        "deals.archived": objects.get("archived", []), "deals": list(deals), "deals.gone": objects.get("gone", []),
        "deals.history": objects.get("history", []), "deals.associations": objects.get("associations", []),
        "companies": objects.get("companies", [company("51", "Nordwind GmbH"), company("52", "Südwind AG")]),
    }  # fmt: skip
    given |= {"properties": objects["properties"]} if "properties" in objects else {}
    given |= {"exchange_rates": objects["rates"]} if "rates" in objects else {}
    for name, records in given.items():
        whole = name in {"owners", "pipelines", "properties", "deals.archived", "exchange_rates"} or (full and name in {"deals", "companies"})
        key = "name" if name == "properties" else "id"
        manifest = Manifest("inbound", "hubspot", name, key, "full" if whole or full else "incremental", complete=whole)
        if name in {"deals", "companies"}:
            manifest.watermark, manifest.cursor = NOON, "hs_lastmodifieddate"
        if name == "deals":
            seen = dict.fromkeys(p for r in records or () for p in r["properties"])
            manifest.fields = [Field(p, (types or {}).get(p, "string"), calculated=p in calculated) for p in seen]
        if records is None:
            manifest.notice = "the token may not read it"
        elif records:
            data = b"".join(orjson.dumps(record) + b"\n" for record in records)
            (landing.object_directory(name) / "part-00000.ndjson").write_bytes(data)
            manifest.files = [LandedFile("part-00000.ndjson", "ndjson", len(records), len(data))]
        landing.finish_object(manifest)
        names.append(name)
    return landing.finish(Pull("inbound", "hubspot", run_id, full, names, dict(org)))


# Asking --------------------------------------------------------------------------------------------------------------------------


def rows(con: Any, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    found = con.execute(sql, list(parameters) or None)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def one(con: Any, sql: str, *parameters: Any) -> dict[str, Any]:
    found = rows(con, sql, *parameters)
    assert len(found) == 1, found
    return found[0]


def deals_of(con: Any) -> dict[str, dict[str, Any]]:
    """core.opportunity by opportunity_id."""
    return {row["opportunity_id"]: row for row in rows(con, "from core.opportunity")}


def counts(result: Sequence[Any], name: str) -> tuple[int, int, int, int, int]:
    """inserted, changed, unchanged, echoed, deleted of an object."""
    found = next(c for c in result if c.object == name)
    return found.inserted, found.changed, found.unchanged, found.echoed, found.deleted


VERSION = (
    "stage, crm_stage, pipeline, amount, currency, amount_home, close_date, owner_id, probability, forecast_category, next_step, is_closed, is_won, "
    "is_deleted"
)


def timeline_faults(con: Any) -> list[tuple[Any, ...]]:
    """(opportunity_key, what is wrong) of core.opportunity_version. A deal's versions follow each other from its first day on without a gap or
    an overlap, each another one than that before, each of an origin; one has no end, and that is the deal as core.opportunity has it."""
    return con.execute(f"""
        with version as (
            select *, ({VERSION}) as state from core.opportunity_version
        ),
        placed as (
            select *, lead(valid_from) over deal as next_from, lag(valid_from) over deal as previous_from, lag(state) over deal as previous_state
            from version
            window deal as (partition by opportunity_key order by valid_from)
        )
        select opportunity_key, 'a gap, an overlap or no end' as fault from placed where valid_to is distinct from next_from or valid_to <= valid_from
        union all
        select opportunity_key, 'says the same as the one before'
        from placed where previous_from is not null and state is not distinct from previous_state
        union all
        select opportunity_key, 'has no origin' from placed where coalesce(origin not in ('crm_history', 'observed'), true)
        union all
        select opportunity_key, 'begins at another instant than the deal'
        from placed join core.opportunity o using (opportunity_key) where previous_from is null and valid_from <> o.created_at
        union all
        select coalesce(o.opportunity_key, v.opportunity_key), 'the last one is not the deal'
        from (select opportunity_key, ({VERSION}) as state from core.opportunity) o
        full join (from version where valid_to is null) v using (opportunity_key)
        where o.state is distinct from v.state
        order by all
    """).fetchall()


# What a check leaves behind -----------------------------------------------------------------------------------------------------

RULES = """
    insert into quality.rule (rule_id, title, mistake, severity, state, audience, grp, fix, version, definition) values
        ('close_date_past', 'The close date is past', 'stale', 'critical', 'alert', 'rep', 'dates', 'Set a new date', 'v1', '-'),
        ('no_contact', 'Nobody on the other side', 'thin', 'high', 'alert', 'rep', 'people', 'Add a contact', 'v1', '-'),
        ('single_threaded', 'One contact only', 'thin', 'medium', 'alert', 'rep', 'people', 'Add a contact', 'v1', '-'),
        ('deal_over_aged', 'Older than deals that win', 'hoarding', 'medium', 'observe', 'rep', 'age', 'Close it', 'v1', '-')
"""


def finding(con: Any, number: int, rule: str, severity: str, *, state: str = "open", runs: int = 1, since: datetime = NOON) -> None:
    con.execute(
        "insert into quality.finding "
        "(finding_id, opportunity_key, rule_id, severity, state, message, first_seen_at, last_seen_at, runs_seen) "
        "values ($1 || $2, $1, $2, $3, $4, 'It is ' || $2, $5, $5, $6)",
        [f"sales:{opp_id(number)}", rule, severity, state, since, runs],
    )


def score(con: Any, number: int, value: float, run: str = "r1", at: datetime = NOON) -> None:
    con.execute(
        "insert into quality.score (run_id, as_of, scope, scope_key, score, status, deals, rule_set_version) "
        "values ($1, $2, 'opportunity', $3, $4, 'clean', 1, 'v1')",
        [run, at, f"sales:{opp_id(number)}", value],
    )
