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
PORTAL = {"org_id": "42", "timezone": "Europe/Berlin", "currency": "EUR", "record_url": "https://app.hubspot.com/contacts/42/record/0-3/{id}"}

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
        "Id": opp_id(number), "IsDeleted": False, "AccountId": "001000000000001AAA", "Name": f"Deal {number}", "Description": None,
        "StageName": "Qualification", "Amount": 1000.0 * number, "Probability": 10.0, "CloseDate": "2026-12-31", "Type": "New Business",
        "NextStep": None, "IsClosed": False, "IsWon": False, "ForecastCategoryName": "Pipeline", "CurrencyIsoCode": "EUR",
        "OwnerId": "005000000000001AAA", "RecordTypeId": None, "CreatedDate": stamp(at - timedelta(days=30)),
        "LastStageChangeDate": None, "LastActivityDate": None, "LastModifiedDate": stamp(at), "SystemModstamp": stamp(at),
        "Loss_Reason__c": None, "Seats__c": None, "Kickoff__c": None, "Weighted__c": 100.0 * number, "Plumbline_Status__c": None,
        "Plumbline_Score__c": None,
    }
    assert set(fields) <= {*record, "Verbal__c", "Plumbline_Issues__c", "Plumbline_Top_Issue__c", "Plumbline_Flagged_Since__c"}, fields
    return record | fields


def opp_id(number: int) -> str:
    return f"006{number:012d}AAA"


def history(number: int, seq: int, at: datetime, stage: str, close_date: str = "2026-12-31", amount: float = 1000.0) -> dict[str, Any]:
    return {
        "Id": f"008{number:06d}{seq:06d}AAA", "OpportunityId": opp_id(number), "StageName": stage, "Amount": amount, "CloseDate": close_date,
        "Probability": 10.0, "ForecastCategory": "Pipeline", "CreatedDate": stamp(at), "SystemModstamp": stamp(at), "IsDeleted": False,
    }


STAGES = [
    ("Prospecting", 10, False, False), ("Qualification", 10, False, False), ("Needs Analysis", 20, False, False),
    ("Proposal/Price Quote", 75, False, False), ("Negotiation/Review", 90, False, False), ("Closed Won", 100, True, True),
    ("Closed Lost", 0, True, False),
]


def stage_rows(*more: tuple[str, int, bool, bool]) -> list[dict[str, Any]]:
    return [
        {
            "Id": f"01J{i:012d}AAA", "MasterLabel": name, "ApiName": name, "IsActive": True, "IsClosed": closed, "IsWon": won, "SortOrder": i + 1,
            "DefaultProbability": float(probability), "ForecastCategoryName": "Pipeline", "SystemModstamp": stamp(NOON - timedelta(days=900)),
        }
        for i, (name, probability, closed, won) in enumerate([*STAGES, *more])
    ]


USERS = [
    {"Id": "005000000000001AAA", "Name": "Ada Seller", "Email": "ada@acme.example", "IsActive": True, "UserType": "Standard", "ManagerId": None,
     "UserRoleId": None, "SystemModstamp": "2024-01-01T00:00:00.000+0000"},
    {"Id": "005000000000002AAA", "Name": "Bo Gone", "Email": "bo@acme.example", "IsActive": False, "UserType": "Standard", "ManagerId": None,
     "UserRoleId": None, "SystemModstamp": "2024-01-01T00:00:00.000+0000"},
]  # fmt: skip
ACCOUNTS = [
    {"Id": "001000000000001AAA", "Name": "Nordwind GmbH", "Industry": "Energy", "NumberOfEmployees": 120, "MasterRecordId": None, "IsDeleted": False,
     "SystemModstamp": "2024-01-01T00:00:00.000+0000"},
    {"Id": "001000000000002AAA", "Name": "Südwind AG", "Industry": None, "NumberOfEmployees": None, "MasterRecordId": None, "IsDeleted": False,
     "SystemModstamp": "2024-01-01T00:00:00.000+0000"},
]  # fmt: skip
WHOLE = {"OpportunityStage", "User", "UserRole", "RecordType", "CurrencyType", "DatedConversionRate", "Organization"}


class SalesforcePull:
    """One pull being written. `full` objects are complete; small objects that are read whole each time always are."""

    def __init__(self, root: Path, run: int, *, source: str = "sales", full: bool = False, org: Mapping[str, Any] = ORG) -> None:
        self.source, self.run_id, self.full, self.org = source, f"20261120T{run:06d}-0000", full, dict(org)
        self.landing = Landing(root, source, self.run_id)
        self.objects: list[str] = []

    def add(
        self, name: str, records: Sequence[Mapping[str, Any]], *, form: str = "json_array", watermark: datetime | None = NOON, per_file: int = 2000,
        notice: str | None = None,
    ) -> SalesforcePull:
        full = self.full or name in WHOLE
        manifest = Manifest(self.source, "salesforce", name, "Id", "full" if full else "incremental", complete=full, watermark=watermark, notice=notice)
        directory = self.landing.object_directory(name)
        if notice is None:
            names = [key for key in (records[0] if records else {"Id": ""}) if key != "attributes" and not isinstance((records[0] if records else {}).get(key), dict)]
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

    flat = [
        {k: v for key, value in r.items() if key != "attributes"
         for k, v in ({f"{key}.{n}": x for n, x in value.items() if n != "attributes"} if isinstance(value, dict) else {key: value}).items()}
        for r in records
    ]  # fmt: skip
    columns = list(flat[0])
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[text(r[c]) for c in columns] for r in flat])
    return out.getvalue().encode(), columns


def sales(root: Path, run: int, deals: Iterable[Mapping[str, Any]], *, full: bool = False, form: str = "json_array", **objects: Any) -> Path:
    """A Salesforce pull with the objects that every org has; `objects` adds or replaces some of them."""
    pull = SalesforcePull(root, run, full=full)
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
