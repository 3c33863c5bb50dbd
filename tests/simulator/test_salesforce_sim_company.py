"""The simulated company as an org: what the API serves is what the company's tables say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from salesforce_sim_help import NOW, World, world

from connectors.simulator.clock import SimClock
from connectors.simulator.company import build_company
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import SalesforceOrg, load_company


@pytest.fixture(scope="module")
def company() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        build_company(con, seed=7, deals=150, now=NOW, kind="salesforce")
        yield con


@pytest.fixture(scope="module")
def w(company: duckdb.DuckDBPyConnection) -> Iterator[World]:
    clock = SimClock(NOW)
    clock.freeze()
    with world(SalesforceOrg(None, clock, Faults(), seed_company=lambda org: load_company(org, company))) as w:
        yield w


def test_every_record_of_the_company_is_there(w: World, company: duckdb.DuckDBPyConnection) -> None:
    counts = {
        "Opportunity": "company.deal", "Account": "company.account", "Contact": "company.contact", "RecordType": "company.pipeline",
        "CurrencyType": "company.currency", "DatedConversionRate": "company.dated_rate", "OpportunityContactRole": "company.deal_contact",
        "Task": "company.activity WHERE kind <> 'meeting'", "Event": "company.activity WHERE kind = 'meeting'",
    }  # fmt: skip
    for sobject, source in counts.items():
        expected = company.execute(f"SELECT count(*) FROM {source}").fetchone()
        assert w.sf.query(f"SELECT COUNT() FROM {sobject}", include_deleted=True)["totalSize"] == expected[0], sobject
    assert w.column("SELECT Name FROM Organization") == [company.execute("SELECT name FROM company.profile").fetchone()[0]]


def test_deals_have_their_current_values(w: World, company: duckdb.DuckDBPyConnection) -> None:
    expected = company.execute(
        """
        WITH value AS (
            SELECT deal_id, arg_max([new], ("at", seq)) FILTER (field = 'stage') AS stage,
                   arg_max([new], ("at", seq)) FILTER (field = 'amount') AS amount,
                   arg_max([new], ("at", seq)) FILTER (field = 'close_date') AS close_date,
                   arg_max([new], ("at", seq)) FILTER (field = 'owner') AS owner,
                   arg_max([new], ("at", seq)) FILTER (field = 'next_step') AS next_step,
                   arg_max([new], ("at", seq)) FILTER (field = 'probability') AS probability
            FROM company.deal_change GROUP BY deal_id)
        SELECT d.deal_id, d.name, d.pipeline, d.currency, d.is_deleted, v.stage[1], v.amount[1]::DECIMAL(18,2), v.close_date[1]::DATE,
               v.owner[1], v.next_step[1], v.probability[1]::INTEGER
        FROM company.deal d JOIN value v USING (deal_id) ORDER BY d.deal_id
        """
    ).fetchall()
    served = w.org.rows(
        """
        SELECT k.company_id, o."Name", r."Name", o."CurrencyIsoCode", o."IsDeleted", o."StageName", o."Amount", o."CloseDate",
               u."EmployeeNumber", o."NextStep", o."Probability"::INTEGER
        FROM "Opportunity" o JOIN simulator.company_key k ON k.id = o."Id" JOIN "RecordType" r ON r."Id" = o."RecordTypeId"
        JOIN "User" u ON u."Id" = o."OwnerId" ORDER BY k.company_id
        """
    )
    assert served == expected and any(row[4] for row in served)


def test_each_pipeline_is_a_record_type_with_its_own_process(w: World, company: duckdb.DuckDBPyConnection) -> None:
    soql = "SELECT Id, Name, BusinessProcess.Name FROM RecordType"
    for record_type in w.records(soql):
        assert record_type["BusinessProcess"]["Name"] == f"{record_type['Name']} Process"
        stages = [s["ApiName"] for s in w.org.stages_of(record_type["Id"])]
        query = "SELECT stage FROM company.stage JOIN company.pipeline p USING (pipeline) WHERE p.label = ? AND is_active"
        expected = company.execute(query, [record_type["Name"]]).fetchall()
        assert set(stages) == {stage for (stage,) in expected} and stages


def test_history_is_the_companys(w: World, company: duckdb.DuckDBPyConnection) -> None:
    moves = """SELECT deal_id, epoch("at")::BIGINT, new FROM company.deal_change WHERE field = 'stage' ORDER BY ALL"""
    served = w.org.rows(
        """
        WITH h AS (
            SELECT *, lag("StageName") OVER (PARTITION BY "OpportunityId" ORDER BY "CreatedDate") AS before FROM "OpportunityHistory")
        SELECT k.company_id, epoch(h."CreatedDate")::BIGINT, h."StageName" FROM h JOIN simulator.company_key k ON k.id = h."OpportunityId"
        WHERE h."StageName" IS DISTINCT FROM h.before ORDER BY ALL
        """
    )
    assert served == company.execute(moves).fetchall()
    tracked = w.org.rows(
        """
        SELECT k.company_id, epoch(h."CreatedDate")::BIGINT, h._new FROM "OpportunityFieldHistory" h
        JOIN simulator.company_key k ON k.id = h."OpportunityId" WHERE h."Field" = 'NextStep' ORDER BY ALL
        """
    )
    changes = """
        SELECT deal_id, epoch("at")::BIGINT, new FROM company.deal_change c JOIN company.deal d USING (deal_id)
        WHERE field = 'next_step' AND "at" > created_at ORDER BY ALL"""
    assert tracked == company.execute(changes).fetchall() and tracked
    last = """
        SELECT count(*) FROM "Opportunity" o JOIN (
            SELECT "OpportunityId" AS id, last(h ORDER BY "CreatedDate") AS h FROM "OpportunityHistory" h GROUP BY 1) USING (id)
        WHERE (o."StageName", o."Amount", o."CloseDate", o."Probability") IS DISTINCT FROM
              (h."StageName", h."Amount", h."CloseDate", h."Probability")"""
    assert w.org.rows(last.replace('USING (id)', 'x ON x.id = o."Id"').replace("h.", "x.h."))[0][0] == 0


def test_the_org_agrees_with_itself(w: World) -> None:
    """Derived fields are as the platform would have derived them."""
    wrong = w.org.rows(
        """
        SELECT o."Name" FROM "Opportunity" o JOIN "OpportunityStage" s ON s."ApiName" = o."StageName"
        WHERE o."IsClosed" <> s."IsClosed" OR o."IsWon" <> s."IsWon" OR o."ForecastCategory" IS NULL
              OR o."SystemModstamp" < o."LastModifiedDate" OR o."LastModifiedDate" < o."CreatedDate"
              OR o."SystemModstamp" > ?::TIMESTAMP
        """,
        [NOW.replace(tzinfo=None)],
    )
    assert wrong == []
    for sobject in w.org.objects.values():
        for f in sobject.fields.values():
            if f.type == "reference" and f.stored and not f.definition["namePointing"]:
                target = f.reference_to[0]
                lost = f'SELECT count(*) FROM "{sobject.name}" WHERE "{f.name}" NOT IN (SELECT "Id" FROM "{target}")'
                assert w.org.rows(lost) == [(0,)], f"{sobject.name}.{f.name}"
        unnamed = f'SELECT count(*) - count(DISTINCT "Id") FROM "{sobject.name}" WHERE substr("Id", 1, 3) = \'{sobject.prefix}\''
        assert w.org.rows(unnamed) == [(0,)], sobject.name


def test_people_go_on_working_and_credentials_need_not_know_the_company(w: World) -> None:
    deal = w.column("SELECT Id FROM Opportunity WHERE IsClosed = false ORDER BY Id LIMIT 1")[0]
    w.org.update("Opportunity", deal, {"NextStep": "Ring them"})
    assert w.row(deal, "NextStep", "LastModifiedById") == ("Ring them", w.org.admin_id)
    new = w.org.create("Opportunity", {"Name": "New", "StageName": "Verbal", "CloseDate": "2026-12-01"})
    assert w.row(new, "Probability", "ForecastCategoryName") == (95, "Commit")
    assert w.sf.Opportunity.get(new)["Id"] == new


def test_an_org_lives_on_in_its_file(tmp_path: Path, company: duckdb.DuckDBPyConnection) -> None:
    path = tmp_path / "state" / "org.duckdb"
    clock = SimClock(NOW)
    org = SalesforceOrg(path, clock, Faults(), seed_company=lambda org: load_company(org, company))
    org.add_field("Opportunity", "Tier__c", "string")
    org.set_formula("Opportunity", "Weighted_Amount__c", "Amount")
    org.hide_field("Opportunity", "NextStep")
    deal = org.create("Opportunity", {"Name": "Kept", "StageName": "Prospecting", "CloseDate": "2026-12-01", "Amount": 7, "Tier__c": "x"})
    org.close()
    with world(SalesforceOrg(path, clock, Faults())) as w:
        kept = w.sf.Opportunity.get(deal)
        assert (kept["Tier__c"], kept["Weighted_Amount__c"]) == ("x", 7.0) and "NextStep" not in kept
        assert w.org.create("Opportunity", {"Name": "Next", "StageName": "Prospecting", "CloseDate": "2026-12-01"}) > deal
