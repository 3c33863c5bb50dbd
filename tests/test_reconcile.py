"""`plumbline reconcile`: what no sync can see is found, told, kept and mended; what agrees is said in a line."""

import json
from datetime import timedelta
from decimal import Decimal

import duckdb
import pytest
from company import _environment, company, configuration, differences, merged_away
from typer.testing import CliRunner

from connectors import hubspot
from flows.cli import app
from flows.errors import exit_code

DEALS = """select opportunity_id from core.opportunity
           where source = ? and not is_deleted and amount is not null and not is_closed order by amount desc"""


class Office:
    """A company of two CRMs, its warehouse, and the command as an admin gives it."""

    def __init__(self, sim, file):
        self.sim, self.file, self.merged_before = sim, file, merged_away(sim)

    def plumbline(self, *words):
        """Give a command at the simulator's present. Gives exit code, stdout and the message of its end."""
        now = self.sim.clock.now().isoformat()
        done = CliRunner().invoke(app, ["--config", str(self.file), "--now", now, "-q", *words])
        if done.exception is None or isinstance(done.exception, SystemExit):
            return done.exit_code, done.stdout, ""
        code = exit_code(done.exception)
        if code is None:
            raise done.exception
        return code, done.stdout, str(done.exception)

    def reconcile(self, *words):
        """The command's JSON, one document a source, beside its exit code."""
        code, said, _ = self.plumbline("--json", "reconcile", *words)
        return code, {source["source"]: source for source in json.loads(said)["sources"]}

    def sql(self, query, *parameters, read_only=True):
        with duckdb.connect(str(self.file.parent / "plumbline.duckdb"), read_only=read_only) as con:
            con.execute("set timezone = 'UTC'")
            return con.execute(query, parameters).fetchall()

    def tamper(self, query, *parameters):
        """What a hand in the warehouse does."""
        return self.sql(query, *parameters, read_only=False)

    def ids(self, source, count):
        return [row[0] for row in self.sql(DEALS, source)[:count]]

    def row(self, source, id_):
        """Everything that core.opportunity says of a deal, but when it was last seen to change."""
        (row,) = self.sql("select * exclude (synced_at) from core.opportunity where source = ? and opportunity_id = ?", source, id_)
        return row

    def wrong(self):
        with duckdb.connect(str(self.file.parent / "plumbline.duckdb"), read_only=True) as con:
            return differences(self.sim, con, self.merged_before)


@pytest.fixture(scope="module")
def synced(tmp_path_factory):
    with company(salesforce_deals=120, hubspot_deals=80) as sim, _environment(sim):
        office = Office(sim, configuration(tmp_path_factory.mktemp("reconcile"), sim))
        assert office.plumbline("sync")[0] == 0
        yield office
        assert office.wrong() == []


@pytest.fixture
def office(synced):
    """The company an hour later. Each test leaves the warehouse as it should be: what it breaks, it has mended."""
    synced.sim.clock.advance(timedelta(hours=1))
    yield synced
    synced.sim.faults_salesforce.clear()
    synced.sim.faults_hubspot.clear()


def kinds(source):
    return {deal["opportunity_key"].split(":")[1]: (deal["kind"], [f["field"] for f in deal["fields"]]) for deal in source["deals"]}


def test_where_all_agrees_one_line_a_source_proves_it(office):
    code, said, _ = office.plumbline("reconcile")
    assert code == 0
    sales, inbound = said.splitlines()
    live = "from core.opportunity where source = 'inbound' and not is_deleted"
    ((amount,),) = office.sql(f"select sum(amount) {live} and currency = 'EUR'")
    ((deals,),) = office.sql(f"select count(*) {live}")
    assert inbound.startswith(f"inbound: {deals} deals on both sides, ")
    assert f"{amount:,.2f} EUR" in inbound
    assert inbound.endswith("; no difference; 1 API calls")
    assert sales.endswith("; no difference; 2 API calls")
    assert office.sql("select status, detail ->> '$.status' from ops.sync_run where command = 'reconcile' and source is null") == [("done", "clean")]
    assert office.sql("select count(*) from ops.reconciliation") == [(0,)]
    assert not (office.file.parent / "landing" / ".reconcile").exists()


def test_what_a_hand_did_to_the_warehouse_is_found_by_deal_and_by_total_and_mended(office):
    """A deal that is not there any more, with all that belongs to it; an amount, a stage, a deletion that nobody made in the CRM."""
    (lost, dearer, elsewhere, buried) = office.ids("sales", 4)
    theirs = office.ids("inbound", 2)
    before = {id_: office.row("sales", id_) for id_ in (lost, dearer, elsewhere, buried)}
    for table in ("opportunity_history", "opportunity_field_history", "opportunity_contact_role", "task", "event"):
        office.tamper(f"delete from raw.salesforce_{table} where parent_id = ?", lost)
    office.tamper("delete from raw.salesforce_opportunity where id = ?", lost)
    office.tamper("delete from core.opportunity where opportunity_id in (?, ?)", lost, theirs[0])
    office.tamper("update core.opportunity set amount = amount + 0.01 where opportunity_id = ?", dearer)
    office.tamper("update core.opportunity set crm_stage = 'Closed Won' where opportunity_id in (?, ?)", elsewhere, theirs[1])
    office.tamper("update core.opportunity set is_deleted = true where opportunity_id = ?", buried)

    code, found = office.reconcile("--no-mend")
    assert code == 1
    assert kinds(found["sales"]) == {
        lost: ("missing", []), buried: ("revived", []), dearer: ("stale", ["amount"]), elsewhere: ("stale", ["stage"]),
    }  # fmt: skip
    assert kinds(found["inbound"]) == {theirs[0]: ("missing", []), theirs[1]: ("stale", ["stage"])}
    sums = {side: sum(Decimal(t[f"{side}_amount"] or 0) for t in found["sales"]["totals"]) for side in ("crm", "warehouse")}
    told = {side: sum(t[f"{side}_deals"] for t in found["sales"]["totals"]) for side in ("crm", "warehouse")}
    assert told["crm"] - told["warehouse"] == 2
    assert sums["crm"] != sums["warehouse"]
    assert found["sales"]["crm_deals"] - found["sales"]["warehouse_deals"] == 2
    assert (found["sales"]["mended"], found["sales"]["pending"]) == (0, 0)

    code, again = office.reconcile()  # nothing was mended, so it is all there still; now it is
    assert code == 1
    assert kinds(again["sales"]) == kinds(found["sales"])
    assert (again["sales"]["mended"], again["inbound"]["mended"]) == (4, 2)
    assert all(deal["mended"] for source in again.values() for deal in source["deals"] + source["totals"])
    assert {id_: office.row("sales", id_) for id_ in before} == before
    assert office.reconcile()[0] == 0
    kept = office.sql("select count(distinct run_id), count(distinct opportunity_key) from ops.reconciliation where level = 'deal'")
    assert kept == [(2, 6)]


def test_what_left_no_trace_in_the_crm_is_marked_deleted_and_never_removed(office):
    """Deleted for good, and the log purged; in HubSpot, deleted for privacy. No sync of this morning is told."""
    org, (deal,), (theirs,) = office.sim.salesforce, office.ids("sales", 1), office.ids("inbound", 1)
    org.delete("Opportunity", deal)
    org.hard_delete("Opportunity", deal)
    org.con.execute("delete from simulator.deletion where id = ?", [deal])
    assert office.plumbline("sync", "sales")[0] == 0
    assert office.row("sales", deal) is not None
    office.sim.hubspot.purge("deals", theirs)
    code, found = office.reconcile()
    assert code == 1
    assert (kinds(found["sales"]), kinds(found["inbound"])) == ({deal: ("gone", [])}, {theirs: ("gone", [])})
    now = office.sim.clock.now()
    for id_ in (deal, theirs):
        ((is_deleted, at, amount),) = office.sql("select is_deleted, deleted_at, amount from core.opportunity where opportunity_id = ?", id_)
        assert is_deleted
        assert timedelta(0) <= now - at < timedelta(minutes=5)
        assert amount is not None  # it keeps what it last was
    assert office.reconcile()[0] == 0


def test_a_commit_later_than_the_overlap_is_caught(office):
    """Stamped before a sync, visible long after it: no increment asks for it any more."""
    org, (late, other) = office.sim.salesforce, office.ids("sales", 2)
    office.sim.faults_salesforce.arm("late_commit", seconds=6 * 3600)
    org.update("Opportunity", late, {"Amount": 123456, "NextStep": "signed in a transaction that took all day"})
    for _ in range(2):
        office.sim.clock.advance(timedelta(hours=4))
        org.update("Opportunity", other, {"NextStep": f"another step at {office.sim.clock.now()}"})
        assert office.plumbline("sync", "sales")[0] == 0
    assert late in {id_ for _, id_, *_ in office.wrong()}
    code, found = office.reconcile("sales")
    assert code == 1
    assert kinds(found["sales"]) == {late: ("stale", ["amount", "stamp"])}
    assert found["sales"]["deals"][0]["pending"] is False  # no sync would have brought it
    assert office.wrong() == []
    assert office.sql("select next_step from core.opportunity where opportunity_id = ?", late) == [("signed in a transaction that took all day",)]


def test_what_changed_since_the_last_sync_is_told_apart_and_with_sync_is_no_difference(office):
    (deal, other) = office.ids("sales", 2)
    office.sim.salesforce.update("Opportunity", deal, {"Amount": 4711})
    code, said, error = office.plumbline("reconcile", "sales", "--no-mend")
    assert code == 1
    assert "1 with other values, 1 of them changed in Salesforce after the last sync; none mended" in said
    assert f"sales:{deal} with other values: amount 4711.00" in said
    assert error.startswith("Deals that differed between CRM and warehouse: sales 1.")
    office.sim.salesforce.delete("Opportunity", other)
    code, said, _ = office.plumbline("reconcile", "sales", "--sync")
    assert code == 0
    assert said.splitlines()[-1].endswith("no difference; " + said.splitlines()[-1].split("; ")[-1])
    assert "1 gone" in said.splitlines()[0]


def test_a_source_that_is_down_ends_red_and_the_other_is_compared(office, monkeypatch):
    (deal,) = office.ids("inbound", 1)
    office.tamper("update core.opportunity set amount = 1 where opportunity_id = ?", deal)
    monkeypatch.setenv("DEMO_SF_CLIENT_SECRET", "wrong")
    code, found = office.reconcile()
    assert code == 3
    assert found["sales"]["status"] == "failed"
    assert "client_secret" in found["sales"]["error"]
    assert kinds(found["inbound"]) == {deal: ("stale", ["amount"])}
    assert found["inbound"]["mended"] == 1
    ended = office.sql("select source, status from ops.sync_run where run_id = (select max(run_id) from ops.reconciliation) order by 1 nulls first")
    assert ended == [(None, "failed"), ("inbound", "done"), ("sales", "failed")]


def test_a_crm_that_fails_while_deals_are_read_again_leaves_them_told_and_unmended(office):
    (deal,) = office.ids("inbound", 1)
    office.tamper("update core.opportunity set amount = 1 where opportunity_id = ?", deal)
    office.sim.faults_hubspot.arm("status", status=403, times=9, path="batch/read")
    code, found = office.reconcile("inbound")
    assert code == 3
    assert kinds(found["inbound"]) == {deal: ("stale", ["amount"])}
    assert (found["inbound"]["mended"], found["inbound"]["deals"][0]["mended"]) == (0, False)
    assert office.sql("select status from ops.sync_run where command = 'mend' order by started_at desc limit 1") == [("failed",)]
    office.sim.faults_hubspot.clear()
    assert office.reconcile("inbound")[1]["inbound"]["mended"] == 1


def test_half_a_listing_is_a_failure_and_buries_nothing(office, monkeypatch):
    (deal,) = office.ids("inbound", 1)
    office.tamper("update core.opportunity set amount = 1 where opportunity_id = ?", deal)
    whole = hubspot.sweep

    def half(*args, landing, run_id, **more):
        pulled = whole(*args, landing=landing, run_id=run_id, **more)
        manifest = landing / "inbound" / run_id / "deals.ids" / "manifest.json"
        told = json.loads(manifest.read_text()) | {"complete": False, "notice": "70 of 80 records came"}
        lines = manifest.parent / told["files"][0]["name"]
        listed = lines.read_text().splitlines(keepends=True)
        kept = [line for line in listed if json.loads(line)["id"] == deal] + listed[: len(listed) // 2]
        lines.write_text("".join(kept))
        told["files"][0]["rows"] = len({json.loads(line)["id"] for line in kept})
        manifest.write_text(json.dumps(told))
        return pulled

    monkeypatch.setattr(hubspot, "sweep", half)
    code, found = office.reconcile("inbound")
    assert code == 3
    assert "70 of 80 records came" in found["inbound"]["error"]
    assert found["inbound"]["kinds"] == {"stale": 1}  # what it did show is compared, and mended
    assert found["inbound"]["mended"] == 1
    assert found["inbound"]["totals"] == []


def test_a_source_that_was_never_synced_is_no_difference_but_a_question(office, tmp_path):
    other = Office(office.sim, configuration(tmp_path, office.sim))
    code, _, error = other.plumbline("reconcile", "inbound")
    assert code == 2
    assert "nothing has been synced yet" in error


def test_lost_sight_of_many_deals_is_not_taken_for_their_end(office):
    """The integration user loses View All. Then somebody says that it is all right; and then the user has it again."""
    org, hidden = office.sim.salesforce, office.ids("sales", 30)
    org.hide_records("Opportunity", hidden)
    code, found = office.reconcile("sales")
    assert code == 1
    assert found["sales"]["kinds"] == {"gone": 30}
    assert found["sales"]["mended"] == 0
    assert "View All" in found["sales"]["held"]
    assert "plumbline reconcile sales --accept-gone" in found["sales"]["held"]
    assert set(hidden) <= set(office.ids("sales", 1000))
    code, found = office.reconcile("sales", "--accept-gone")
    assert (code, found["sales"]["mended"], found["sales"]["held"]) == (1, 30, None)
    assert not set(hidden) & set(office.ids("sales", 1000))
    assert office.reconcile("sales")[0] == 0
    org.hide_records("Opportunity", hidden, hidden=False)
    assert office.plumbline("sync", "sales")[0] == 0
    code, found = office.reconcile("sales")  # no stamp moved: the sync saw only those that its overlap brings anyway
    assert (code, found["sales"]["kinds"].keys()) == (1, {"revived"})
    assert found["sales"]["mended"] == found["sales"]["kinds"]["revived"] > 20
    assert set(hidden) <= set(office.ids("sales", 1000))


def test_what_a_failed_sync_had_read_does_not_bring_back_what_was_marked_since(office, monkeypatch):
    """A sync reads deals and fails at their history; then sight of one of them is lost. The next sync does not go on with those pages."""
    org, (deal,) = office.sim.salesforce, office.ids("sales", 1)
    org.update("Opportunity", deal, {"NextStep": "so that the increment brings it"})
    office.sim.faults_salesforce.arm("status", status=503, times=50, path="OpportunityFieldHistory")
    monkeypatch.setattr("connectors.http.random.uniform", lambda *_: 0.0)
    assert office.plumbline("sync", "sales")[0] == 3
    office.sim.faults_salesforce.clear()
    org.hide_records("Opportunity", [deal])
    assert kinds(office.reconcile("sales")[1]["sales"]) == {deal: ("gone", [])}
    assert office.plumbline("sync", "sales")[0] == 0
    assert office.sql("select is_deleted from core.opportunity where opportunity_id = ?", deal) == [(True,)]
    org.hide_records("Opportunity", [deal], hidden=False)
    assert kinds(office.reconcile("sales")[1]["sales"])[deal][0] == "revived"
    assert office.wrong() == []


def test_fifty_deals_are_printed_and_all_are_kept(office, monkeypatch):
    office.tamper("update core.opportunity set amount = coalesce(amount, 0) + 1 where source = 'sales' and not is_deleted")
    monkeypatch.setattr("flows.reconcile.BY_ID", 49)
    code, said, _ = office.plumbline("reconcile", "sales")
    assert code == 1
    assert "Not mended: " in said
    assert "Run `plumbline sync sales --full`" in said
    monkeypatch.undo()
    code, said, _ = office.plumbline("reconcile", "sales")
    assert code == 1
    assert "all mended" in said
    lines = [line for line in said.splitlines() if " with other values: amount " in line]
    count = office.sql("select count(*) from core.opportunity where source = 'sales' and not is_deleted")[0][0]
    assert len(lines) == 50
    assert f"… and {count - 50} deals more" in said
    newest = "(select max(run_id) from ops.reconciliation)"
    assert office.sql(f"select count(distinct opportunity_key) from ops.reconciliation where run_id = {newest}") == [(count,)]


@pytest.mark.slow
def test_the_weekly_flow_syncs_compares_and_ends_red_when_deals_differed(office, monkeypatch):
    """The entry point of prefect.yaml, without a Prefect server around it."""
    import logging

    from flows import deployments

    monkeypatch.setattr(deployments, "get_run_logger", lambda: logging.getLogger("weekly"))
    flow = deployments.reconcile.fn
    flow(config=str(office.file), now=office.sim.clock.now())
    (deal,) = office.ids("sales", 1)
    office.tamper("update core.opportunity set amount = 1 where opportunity_id = ?", deal)
    with pytest.raises(Exception, match="sales 1") as caught:
        flow(config=str(office.file), now=office.sim.clock.now())
    assert exit_code(caught.value) == 1
