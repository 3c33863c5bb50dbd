"""Three nights of the whole job on both CRMs: what an admin relies on, told as they would check it."""

import re

import duckdb
import pytest
from company import NIGHT_1, NIGHT_2, NIGHT_3, WORKDAY, _environment, company, configuration, differences, merged_away, run_flow

from connectors.simulator.scenario import changed_day
from flows.nightly import nightly


class Nights:
    """The company after three nights, with what each night said and what stood in the warehouse after it."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    told = Nights()
    directory = tmp_path_factory.mktemp("company")
    with company() as sim, _environment(sim):
        file = configuration(directory, sim)
        told.directory, told.sim, told.file = directory, sim, file

        told.merged_before = merged_away(sim)

        def night(now):
            sim.clock.set(now)
            result = run_flow(file, nightly, now)
            con = duckdb.connect(str(directory / "plumbline.duckdb"), read_only=True)
            with con:
                wrong = differences(sim, con, told.merged_before)
                state = con.execute("select opportunity_key, row_hash from core.opportunity order by 1").fetchall()
            return result, wrong, state

        told.first = night(NIGHT_1)
        sim.clock.set(WORKDAY)
        told.day = changed_day(sim)
        told.second = night(NIGHT_2)
        told.third = night(NIGHT_3)
        yield told


@pytest.fixture
def con(nights):
    with duckdb.connect(str(nights.directory / "plumbline.duckdb"), read_only=True) as con:
        con.execute("set timezone = 'UTC'")
        yield con


def test_every_night_ends_with_the_warehouse_equal_to_the_crms(nights):
    for result, wrong, _ in (nights.first, nights.second, nights.third):
        assert result.synced.errors == {}
        assert wrong == []


def test_no_field_is_said_to_be_lost_where_nobody_took_one(con):
    """HubSpot also answers properties that its schema does not list."""
    assert con.execute("select source, object, name from core.field_lost").fetchall() == []
    unlisted = "select name from core.field where source = 'inbound' and type is null"
    assert ("hs_v2_date_entered_current_stage",) in con.execute(unlisted).fetchall()


def test_the_first_night_takes_everything_and_finds_the_planted_mistakes(nights):
    result, _, state = nights.first
    assert len(state) == 850 - len(nights.merged_before)
    assert result.checked.opened > 20
    assert result.checked.resolved == 0
    assert result.checked.errors == {}


def test_the_second_night_reads_what_changed_and_not_what_exists(nights):
    result, _, _ = nights.second
    for outcome in result.synced.sources:
        assert outcome.deals["inserted"] > 0
        assert outcome.deals["changed"] > 0
        assert outcome.deals["deleted"] > 0
    assert result.checked.opened > 0
    assert result.checked.resolved > 0


def test_the_third_night_reads_only_its_overlap_and_changes_nothing(nights):
    result, _, state = nights.third
    for outcome in result.synced.sources:
        deals = outcome.deals
        assert (deals["inserted"], deals["changed"], deals["deleted"]) == (0, 0, 0)
        assert deals["fetched"] == deals["unchanged"] + deals["echoed"]
        assert deals["fetched"] < len(state) / 3
    assert state == nights.second[2]


def test_the_third_night_opens_nothing_and_writes_nothing_although_our_own_writes_moved_every_stamp(nights):
    written = nights.second[0].applied
    assert sum(written.written.values()) > 0
    assert sum(outcome.deals["echoed"] for outcome in nights.third[0].synced.sources) >= sum(written.written.values())
    assert nights.third[0].checked.opened == 0
    assert nights.third[0].plan.records == 0


def test_the_crms_hold_the_flags_that_the_check_arrived_at(nights, con):
    scores = dict(
        con.execute(
            "select scope_key, status from quality.score where scope = 'opportunity' qualify run_id = max(run_id) over ()"
        ).fetchall()
    )
    held = {
        f"sales:{row[0]}": row[1]
        for row in nights.sim.salesforce.rows('select "Id", "Plumbline_Status__c" from "Opportunity" where not "IsDeleted"')
    }
    open_deals = [
        row[0]
        for row in con.execute(
            "select opportunity_key from core.opportunity where source = 'sales' and not is_closed and not is_deleted"
        ).fetchall()
    ]
    assert len(open_deals) > 20
    assert {key: held[key] for key in open_deals} == {key: scores[key] for key in open_deals}


def test_a_deal_that_was_closed_loses_its_flags(nights, con):
    closed = con.execute("select opportunity_id from core.opportunity where source = 'sales' and is_closed and not is_deleted").fetchall()
    held = dict(nights.sim.salesforce.rows('select "Id", "Plumbline_Status__c" from "Opportunity"'))
    assert {held[row[0]] for row in closed} == {None}


def test_counts_of_great_expectations_equal_the_findings(con):
    run_id, validation = con.execute("select run_id, validation from quality.run order by run_id desc limit 1").fetchone()
    failed = dict(con.execute("select rule_id, sum(failed + waived) from quality.result where run_id = ? group by 1", [run_id]).fetchall())
    found = dict(con.execute("select rule_id, count(*) from quality.finding where state <> 'resolved' group by 1").fetchall())
    assert {rule: n for rule, n in failed.items() if n} == found
    assert '"unexpected_count"' in validation


def test_a_new_stage_is_counted_aloud_and_stops_nothing(nights, con):
    stages = con.execute("select distinct crm_stage from core.opportunity where stage = 'unmapped' and source = 'sales'").fetchall()
    assert ("Steering Gate",) in stages
    assert any(row["label"] == "Steering Gate" for row in nights.second[0].unmapped)
    flagged = con.execute("select count(*) from quality.finding where rule_id = 'state_inconsistent' and state = 'open'").fetchone()
    assert flagged[0] > 0


def test_a_stage_once_mapped_stays_mapped_when_another_appears_beside_it(con):
    assert con.execute("select distinct stage from core.stage_map where label = 'Verbal'").fetchall() == [("negotiation",)]


def test_a_new_field_arrives_with_its_values_the_same_night(con):
    filled = con.execute(
        "select count(*) from core.opportunity where source = 'sales' and json_extract_string(custom, '$.Partner_Tier__c') is not null"
    )
    assert filled.fetchone()[0] == 4


def test_the_snapshot_adds_up_to_the_open_deals(con):
    snapshot = con.execute("select sum(deals), sum(amount_home) from bi.pipeline_snapshot where snapshot_date = '2026-03-11'").fetchone()
    deals = con.execute("select count(*), sum(amount_home) from core.opportunity where not is_closed and not is_deleted").fetchone()
    assert snapshot == deals


def test_every_run_is_on_record(con):
    runs = con.execute("select status, count(*) from ops.sync_run where source is null group by 1").fetchall()
    assert runs == [("done", 3)]
    assert con.execute("select count(distinct source) from ops.sync_object").fetchone() == (2,)
    assert con.execute("select min(calls) from ops.api_usage").fetchone()[0] > 0


def test_the_published_file_is_read_while_the_warehouse_is_written(nights):
    from flows.run import open_run
    from flows.settings import load_settings

    with (
        open_run("sync", load_settings(nights.file), NIGHT_3),
        duckdb.connect(str(nights.directory / "published/plumbline.duckdb"), read_only=True) as bi,
    ):
        assert bi.execute("select count(*) from bi.opportunity").fetchone()[0] > 800
        assert bi.execute("select count(*) from duckdb_tables() where schema_name = 'raw'").fetchone() == (0,)
        uncommented = bi.execute(
            "select schema_name || '.' || table_name || '.' || column_name from duckdb_columns() where comment is null and not internal"
        ).fetchall()
        assert uncommented == []


def test_no_secret_and_no_address_of_a_person_is_in_what_was_written_down(nights, con):
    """Secrets are nowhere; the report names sellers, never their addresses or the buyers."""
    secrets = {nights.sim.salesforce.identity.client_secret, nights.sim.hubspot.access.access_token}
    for path in nights.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path
    report = (nights.directory / "report/index.html").read_text(encoding="utf-8")
    assert not re.search(r"[\w.]+@[\w.]+\.\w+", report)
