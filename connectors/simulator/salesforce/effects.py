"""What the platform does by itself when records are written: derived fields, history, roll-ups onto opportunities.

`derive` gives SQL expressions over n (the record as written), o (as it was; all NULL on insert) and named joins; `follow` writes
what comes after. Both are set-based: they run once per batch, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connectors.simulator.salesforce.catalogue import Field
from connectors.simulator.salesforce.compile import literal
from connectors.simulator.salesforce.ids import sql_id
from connectors.simulator.salesforce.objects import FORECAST_CATEGORY_NAMES

if TYPE_CHECKING:
    from connectors.simulator.salesforce.writes import Run

_CATEGORY_OF_NAME = " ".join(f"WHEN '{name}' THEN '{category}'" for category, name in FORECAST_CATEGORY_NAMES.items())
# DataType of a tracked field in OpportunityFieldHistory, by the field's type.
_DATA_TYPES = {
    "currency": "Currency", "percent": "Percent", "double": "Double", "int": "Double", "date": "DateOnly", "datetime": "DateTime",
    "boolean": "Boolean", "picklist": "DynamicEnum", "multipicklist": "MultiEnum", "email": "Email", "phone": "Phone", "url": "Url",
}  # fmt: skip


def _data_type(f: Field) -> str:
    if f.type == "textarea":
        return "StringPlusClob" if f.definition["length"] > SHORT else "MultiLineText"
    return _DATA_TYPES.get(f.type, "Text")


def _is_told(f: Field) -> bool:
    """Whether the history shows values; of long texts and multi-select picklists it says only that they changed."""
    return f.type != "multipicklist" and _data_type(f) != "StringPlusClob"


SHORT = 255  # characters of a text area that is not a long one


@dataclass
class Derived:
    """Columns that a write sets beside those that were asked for."""

    columns: dict[str, str] = field(default_factory=dict)
    joins: str = ""


# What the effects on an object read beside what a write sets and derives: the columns that a batch must carry.
NEEDS: dict[str, set[str]] = {
    "Opportunity": {
        "StageName", "Amount", "CloseDate", "Probability", "ForecastCategory", "ForecastCategoryName", "CurrencyIsoCode", "PushCount",
        "LastStageChangeDate", "LastAmountChangedHistoryId", "LastCloseDateChangedHistoryId",
    },
    "Task": {"WhatId", "Status", "CompletedDateTime", "TaskSubtype"},
    "Event": {
        "WhatId", "StartDateTime", "EndDateTime", "ActivityDateTime", "ActivityDate", "DurationInMinutes", "EventSubtype",
    },
    "OpportunityContactRole": {"OpportunityId", "IsPrimary"},
    "Plumbline_Snapshot__c": {"Name"},
}  # fmt: skip


def derive(run: Run) -> Derived:
    makers = {"Opportunity": _opportunity, "Task": _task, "Event": _event, "Plumbline_Snapshot__c": _snapshot}
    maker = makers.get(run.sobject.name)
    return maker(run) if maker else Derived()


def follow(run: Run) -> None:
    if run.sobject.name == "Opportunity":
        _opportunity_history(run)
        _field_history(run)
    elif run.sobject.name in {"Task", "Event"}:
        roll_up_activities(run, 'SELECT "WhatId" FROM _old UNION SELECT "WhatId" FROM _new')
    elif run.sobject.name == "OpportunityContactRole":
        _one_primary(run)


# --- opportunities ----------------------------------------------------------------------------------------------------


def _opportunity(run: Run) -> Derived:
    """The stage sets probability, forecast category and the closed flags, unless the same write sets them."""
    moved = '(n."StageName" IS DISTINCT FROM o."StageName")'

    def by_stage(name: str, default: str) -> str:
        return (
            f'CASE WHEN {run.is_set(name)} AND n."{name}" IS NOT NULL THEN n."{name}" '
            f'WHEN {moved} THEN coalesce({default}, n."{name}") ELSE n."{name}" END'
        )

    category_name = by_stage("ForecastCategoryName", 'st."ForecastCategoryName"')
    def history_id(changed: str) -> str:
        return (
            f'CASE WHEN o."Id" IS NOT NULL AND n."{changed}" IS DISTINCT FROM o."{changed}" '
            f'THEN s._history_id ELSE n."Last{changed}ChangedHistoryId" END'
        )

    return Derived(
        {
            "Probability": by_stage("Probability", 'st."DefaultProbability"'),
            "ForecastCategoryName": category_name,
            "ForecastCategory": f"CASE {category_name} {_CATEGORY_OF_NAME} END",
            "IsClosed": 'coalesce(st."IsClosed", false)',
            "IsWon": 'coalesce(st."IsWon", false)',
            "LastStageChangeDate": f'CASE WHEN o."Id" IS NOT NULL AND {moved} THEN {run.stamp} ELSE n."LastStageChangeDate" END',
            # A push is a move into a later calendar month; it is never taken back.
            "PushCount": "coalesce(n.\"PushCount\", 0) + coalesce((date_trunc('month', n.\"CloseDate\") "
            "> date_trunc('month', o.\"CloseDate\"))::INTEGER, 0)",
            "LastAmountChangedHistoryId": history_id("Amount"),
            "LastCloseDateChangedHistoryId": history_id("CloseDate"),
        },
        'LEFT JOIN "OpportunityStage" st ON st."ApiName" = n."StageName"',
    )


def _opportunity_history(run: Run) -> None:
    """A row whenever stage, amount, close date or probability changes, and one at creation."""
    run.sql(
        f"""
        INSERT INTO "OpportunityHistory" BY NAME
        SELECT s._history_id AS "Id", n."Id" AS "OpportunityId", {run.by} AS "CreatedById",
               {run.stamp} AS "CreatedDate", n."StageName", n."Amount",
               (n."Amount" * n."Probability" / 100)::DECIMAL(18,2) AS "ExpectedRevenue", n."CloseDate", n."Probability",
               n."ForecastCategory", n."CurrencyIsoCode", o."Amount" AS "PrevAmount", o."CloseDate" AS "PrevCloseDate",
               {run.stamp} AS "SystemModstamp", false AS "IsDeleted"
        FROM _new n JOIN _stage s ON s.rn = n.rn LEFT JOIN _old o ON o.rn = n.rn
        WHERE (n."StageName", n."Amount", n."CloseDate", n."Probability")
              IS DISTINCT FROM (o."StageName", o."Amount", o."CloseDate", o."Probability")
        """
    )


def _field_history(run: Run) -> None:
    """A row per changed tracked field; two per lookup, one with names and one with ids; 'created' at creation."""
    tracked = run.org.tracked_fields
    if not tracked:
        return
    if run.inserting:
        entries = ["{'field': 'created', 'type': 'Text', 'old': NULL::VARCHAR, 'new': '', 'told': false}"]
    else:
        entries = []
        for name in tracked:
            f = run.sobject.fields[name]
            if name not in run.written():
                continue

            def entry(kind: str, value: str, field: str = name, told: bool = _is_told(f)) -> str:
                # Compared as the history shows them; a lookup is shown without its Id.
                shown = field.removesuffix("Id") if not field.endswith("__c") else field
                old, new = (value.replace("{x}", f'{alias}."{field}"') for alias in ("o", "n"))
                return f"{{'field': '{shown}', 'type': '{kind}', 'old': {old}, 'new': {new}, 'told': {literal(told)}}}"

            if f.type == "reference":
                target = run.org.objects[f.reference_to[0]]
                label = run.context.value(target.fields["Name"], "x")
                entries.append(entry("Text", f'(SELECT {label} FROM "{target.name}" x WHERE x."Id" = {{x}})'))
            kind = "EntityId" if f.type == "reference" else _data_type(f)
            entries.append(entry(kind, "{x}::VARCHAR"))
    if not entries:
        return
    first = run.org.take_numbers("OpportunityFieldHistory", run.size * (len(entries) + 1))
    run.sql(
        f"""
        INSERT INTO "OpportunityFieldHistory" BY NAME
        WITH compared AS (
            SELECT n.rn, n."Id" AS id, unnest([{", ".join(entries)}]) AS c FROM _new n LEFT JOIN _old o ON o.rn = n.rn),
        changed AS (
            SELECT *, {first} + row_number() OVER (ORDER BY rn, c.field, c.type) AS number FROM compared WHERE c.old IS DISTINCT FROM c.new)
        SELECT {sql_id("017", "number")} AS "Id", false AS "IsDeleted", id AS "OpportunityId", {run.by} AS "CreatedById",
               {run.stamp} AS "CreatedDate", c.field AS "Field", c.type AS "DataType",
               CASE WHEN c.told THEN c.old END AS _old, CASE WHEN c.told THEN c.new END AS _new
        FROM changed
        """
    )


def _one_primary(run: Run) -> None:
    """A new primary contact takes the mark from the others, and nothing moves on the opportunity."""
    run.sql(
        """
        UPDATE "OpportunityContactRole" SET "IsPrimary" = false
        WHERE "IsPrimary" AND "OpportunityId" IN (SELECT "OpportunityId" FROM _new WHERE "IsPrimary")
              AND "Id" NOT IN (SELECT "Id" FROM _new WHERE "IsPrimary")
        """
    )


# --- activities -------------------------------------------------------------------------------------------------------

_ACCOUNT_OF_WHAT = """CASE WHEN n."WhatId" LIKE '001%' THEN n."WhatId" ELSE opp."AccountId" END"""
_WHAT = 'LEFT JOIN "Opportunity" opp ON opp."Id" = n."WhatId"'


def _task(run: Run) -> Derived:
    closed = "coalesce(n.\"Status\" = 'Completed', false)"
    return Derived(
        {
            "IsClosed": closed,
            "CompletedDateTime": f'CASE WHEN {closed} THEN coalesce(n."CompletedDateTime", {run.stamp}) END',
            "AccountId": _ACCOUNT_OF_WHAT,
            "TaskSubtype": "coalesce(n.\"TaskSubtype\", 'Task')",
        },
        _WHAT,
    )


def _event(run: Run) -> Derived:
    start = 'coalesce(n."StartDateTime", n."ActivityDateTime", n."ActivityDate"::TIMESTAMP)'
    length = f"""coalesce(CASE WHEN {run.is_set("EndDateTime")} THEN date_diff('minute', {start}, n."EndDateTime") END,
                          n."DurationInMinutes", 60)::INTEGER"""
    return Derived(
        {
            "StartDateTime": start,
            "ActivityDateTime": start,
            "ActivityDate": f"({start})::DATE",
            "DurationInMinutes": length,
            "EndDateTime": f"{start} + to_minutes({length})",
            "EndDate": f"({start} + to_minutes({length}))::DATE",
            "AccountId": _ACCOUNT_OF_WHAT,
            "EventSubtype": "coalesce(n.\"EventSubtype\", 'Event')",
        },
        _WHAT,
    )


def _snapshot(run: Run) -> Derived:
    return Derived({"Name": f"coalesce(n.\"Name\", 'PS-' || lpad(({run.first_number} - {run.number_base} + n.rn)::VARCHAR, 8, '0'))"})


def activity_roll_up(touched: str) -> str:
    """SQL: one row per opportunity in `touched` (a query of ids) with what its activities say of it."""
    return f"""
        WITH touched AS (SELECT DISTINCT id FROM ({touched}) t(id) WHERE id LIKE '006%'),
        tasks AS (
            SELECT "WhatId" AS id, max("ActivityDate") FILTER ("IsClosed") AS done,
                   count(*) FILTER (NOT "IsClosed") AS open, min("ActivityDate") FILTER (NOT "IsClosed") AS due
            FROM "Task" WHERE NOT "IsDeleted" AND "WhatId" IN (SELECT id FROM touched) GROUP BY "WhatId"),
        events AS (
            SELECT "WhatId" AS id, max("ActivityDate") AS day, max("EndDateTime") AS ends
            FROM "Event" WHERE NOT "IsDeleted" AND "WhatId" IN (SELECT id FROM touched) GROUP BY "WhatId")
        SELECT touched.id, greatest(tasks.done, events.day) AS last_activity, coalesce(tasks.open, 0) AS open_tasks,
               tasks.due AS next_due, events.ends AS last_end
        FROM touched LEFT JOIN tasks ON tasks.id = touched.id LEFT JOIN events ON events.id = touched.id
    """


def roll_up_activities(run: Run, touched: str) -> None:
    """LastActivityDate of the opportunities and what their activity flags are computed from.

    A new LastActivityDate moves SystemModstamp but not LastModifiedDate: nobody edited the opportunity. The flags move nothing.
    """
    run.sql(
        f"""
        UPDATE "Opportunity" SET
            "SystemModstamp" = CASE WHEN "LastActivityDate" IS DISTINCT FROM x.last_activity THEN {run.stamp} ELSE "SystemModstamp" END,
            "LastActivityDate" = x.last_activity, _open_tasks = x.open_tasks, _next_task_due = x.next_due, _last_event_end = x.last_end
        FROM ({activity_roll_up(touched)}) x WHERE "Opportunity"."Id" = x.id
        """
    )
