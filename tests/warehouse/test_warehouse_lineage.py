"""Where columns come from is said once: the statement holds against the SQL that makes them, and both who ask it get the same answer."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from warehouse import derive
from warehouse.landed import SHAPES
from warehouse.lineage import DEALS, lineage, lost

NOW = datetime(2026, 3, 10, tzinfo=UTC)
SQL = Path(derive.__file__).parent / "sql"


@pytest.mark.parametrize("crm", ["salesforce", "hubspot"])
def test_every_field_named_is_one_that_the_sql_reads(con, crm):
    assert derive.DEALS == DEALS
    text = (SQL / crm / "deal.sql").read_text(encoding="utf-8")
    sources = {source for several in lineage(crm).values() for source in several}
    fields = {source.removeprefix(f"{DEALS[crm]}.") for source in sources if source.startswith(f"{DEALS[crm]}.")} - {"associations", "history"}
    assert {name for name in fields if f'"{name}": "VARCHAR"' not in text} == set()
    columns = {row[0] for row in con.execute("select column_name from (describe core.opportunity)").fetchall()}
    assert set(lineage(crm)) <= columns
    if crm == "hubspot":
        assert {source for source in sources if source.partition(".")[2] not in fields} <= set(SHAPES["hubspot"]) | {"companies", "owners"}


@pytest.mark.parametrize(
    ("missing", "columns"),
    [
        ({"Opportunity.Amount"}, {"amount"}),
        ({"Task", "Event"}, {"next_activity_at"}),
        ({"Task", "Event", "Opportunity.LastActivityDate"}, {"next_activity_at", "last_activity_at"}),
        ({"OpportunityHistory"}, {"close_date_pushes"}),
        ({"OpportunityHistory", "Opportunity.LastStageChangeDate"}, {"close_date_pushes", "stage_entered_at"}),
        ({"Opportunity.Pain__c", "Opportunity.Loss__c"}, {"evidence.need", "lost_reason"}),
    ],
)
def test_the_doctor_and_the_warehouse_agree_on_what_is_lost(con, missing, columns):
    mapped = {"need": "Pain__c", "lost_reason": "Loss__c"}
    sources = {source for several in lineage("salesforce", mapped).values() for source in several} - missing
    told = {"readable": sorted(s for s in sources if "." not in s), "fields": mapped}
    con.execute(
        "insert into core.source (source, crm, derivation, first_synced_at, last_synced_at) values ('sales', 'salesforce', $1, $2, $2)",
        [json.dumps(told), NOW],
    )
    con.execute(
        "insert into core.field (source, object, name, type, first_seen_at, last_seen_at) "
        "select 'sales', 'Opportunity', unnest($1), 'string', $2, $2",
        [sorted(s.removeprefix("Opportunity.") for s in sources if "." in s), NOW],
    )
    found = con.execute("select column_name, object, field from core.unreadable").fetchall()
    assert {row[0] for row in found} == set(lost("salesforce", missing, mapped)) == columns
    assert {".".join(filter(None, row[1:])) for row in found} <= missing


def test_values_that_are_here_of_changed_records_only_are_not_here_yet(con):
    con.execute(
        "insert into core.source (source, crm, derivation, first_synced_at, last_synced_at) values ('sales', 'salesforce', $1, $2, $2)",
        [json.dumps({"readable": [], "fields": {"lost_reason": "Loss__c"}}), NOW],
    )
    con.execute(
        "insert into core.field (source, object, name, type, is_partial, first_seen_at, last_seen_at) "
        "values ('sales', 'Opportunity', 'Loss__c', 'string', true, $1, $1)",
        [NOW],
    )
    assert con.execute("select field from core.unreadable where column_name = 'lost_reason'").fetchall() == [("Loss__c",)]
    con.execute("update core.field set is_partial = false")
    assert con.execute("select field from core.unreadable where column_name = 'lost_reason'").fetchall() == []
