"""What a listing of the CRM's live deals says against the warehouse: deal by deal, and totals to the cent."""

from datetime import timedelta
from decimal import Decimal

import orjson
import pytest
from warehouse_land import NOON, SalesforcePull, deal, inbound, opp_id, opportunity, pipeline, sales, stage_rows, stamp

from connectors.landing import Field as CrmField
from connectors.landing import LandedFile, Landing, Manifest, Pull
from warehouse import reconcile
from warehouse.load import load

COLUMNS = ("Id", "SystemModstamp", "StageName", "RecordTypeId", "Amount", "CurrencyIsoCode", "IsClosed")
RUN = "20261121T000000-0000"
LATER = NOON + timedelta(days=1)


@pytest.fixture
def sync(con, tmp_path):
    """Load a Salesforce pull of these deals. The warehouse's watermark is then noon."""

    def run(deals, number=1, **objects):
        return load(con, sales(tmp_path, number, deals, full=number == 1, **objects), now=NOON)

    return run


@pytest.fixture
def against(con, tmp_path):
    """Compare the warehouse with a listing of these deals; gives the comparison and its differences."""

    def run(deals, *, columns=COLUMNS, whole=True, form="json_array"):
        pull = SalesforcePull(tmp_path / "listing", 1, full=whole)
        rows = [{"attributes": d["attributes"], **{c: d[c] for c in columns}} for d in deals]
        pull.add("Opportunity.ids", rows, form=form, watermark=None)
        found = reconcile.compare(con, pull.done(), run_id=RUN, now=LATER)
        return found, rows_of(con, "deal"), rows_of(con, "stage")

    return run


def rows_of(con, level, source="sales"):
    return {"deal": reconcile.deals, "stage": reconcile.totals}[level](con, run_id=RUN, source=source)


def short(rows):
    nothing = {"field": None, "crm_value": None, "warehouse_value": None}
    return [(r["kind"], r["opportunity_key"].split(":")[1], *f.values()) for r in rows for f in r["fields"] or [nothing]]


@pytest.mark.parametrize("form", ["json_array", "csv"])
def test_equal_sides_leave_no_row(con, sync, against, form):
    deals = [opportunity(1), opportunity(2, Amount=None), opportunity(3, Amount=1e9, CurrencyIsoCode="USD", StageName="Closed Won", IsClosed=True)]
    sync(deals)
    found, by_deal, by_stage = against(deals, form=form)
    assert (found.crm_deals, found.warehouse_deals, found.kinds) == (3, 3, {})
    assert by_deal == by_stage == []
    assert found.amounts == [
        {"currency": "USD", "crm_amount": Decimal("1000000000.00"), "warehouse_amount": Decimal("1000000000.00")},
        {"currency": "EUR", "crm_amount": Decimal("1000.00"), "warehouse_amount": Decimal("1000.00")},
    ]


def test_each_kind_of_difference_is_told_with_both_values(con, sync, against):
    sync([opportunity(n) for n in range(1, 6)] + [opportunity(6, IsDeleted=True)])
    listed = [
        opportunity(1),
        opportunity(2, Amount=2000.01),
        opportunity(3, at=NOON + timedelta(hours=2), StageName="Prospecting"),
        opportunity(4, CurrencyIsoCode="USD", IsClosed=True),
        opportunity(6),
        opportunity(7),
    ]
    found, by_deal, _ = against(listed)
    assert found.kinds == {"gone": 1, "missing": 1, "revived": 1, "stale": 3}
    assert sorted(short(by_deal), key=str) == sorted(
        [
            ("stale", opp_id(2), "amount", "2000.01", "2000.00"),
            ("stale", opp_id(3), "stage", "Prospecting", "Qualification"),
            ("stale", opp_id(3), "stamp", "2026-11-20 14:00:00+00", "2026-11-20 12:00:00+00"),
            ("stale", opp_id(4), "closed", "true", "false"),
            ("stale", opp_id(4), "currency", "USD", "EUR"),
            ("gone", opp_id(5), None, None, None),
            ("revived", opp_id(6), None, None, None),
            ("missing", opp_id(7), None, None, None),
        ],
        key=str,
    )
    later = {r["opportunity_key"]: r["pending"] for r in by_deal}
    assert later[f"sales:{opp_id(3)}"] is True  # changed after the sync
    assert later[f"sales:{opp_id(2)}"] is False  # same stamp: no sync would ever look at it
    assert later[f"sales:{opp_id(5)}"] is None  # a deal that is not there has no stamp
    assert reconcile.pending(con, run_id=RUN, source="sales") == 1


def test_totals_add_up_by_pipeline_stage_and_currency_and_null_is_not_zero(con, sync, against):
    types = [{"Id": "012000000000001AAA", "Name": "Enterprise", "SobjectType": "Opportunity", "SystemModstamp": stamp(NOON)}]
    deals = [
        opportunity(1, RecordTypeId="012000000000001AAA", Amount=0.1),
        opportunity(2, RecordTypeId="012000000000001AAA", Amount=0.2),
        opportunity(3, Amount=None),
        opportunity(4, Amount=None, CurrencyIsoCode="USD"),
    ]
    sync(deals, RecordType=types)
    listed = [
        deals[0],
        deals[1] | {"Amount": 0.21},
        deals[2] | {"Amount": 0.0},
        deals[3],
        opportunity(5, CurrencyIsoCode="CHF", RecordTypeId="012000000000009AAA", Amount=7.5),  # a record type that no sync has read
    ]
    found, _, by_stage = against(listed)
    sums = ("crm_deals", "warehouse_deals", "crm_amount", "warehouse_amount")
    groups = {(r["pipeline"], r["currency"]): tuple(r[k] for k in sums) for r in by_stage}
    assert groups == {
        ("Enterprise", "EUR"): (2, 2, Decimal("0.31"), Decimal("0.30")),
        ("default", "EUR"): (1, 1, Decimal("0.00"), None),
        ("default", "CHF"): (1, 0, Decimal("7.50"), None),
    }
    assert found.amounts[0] == {"currency": "CHF", "crm_amount": Decimal("7.50"), "warehouse_amount": Decimal(0)}


def test_sums_are_exact_where_floats_are_not(con, sync, against):
    deals = [opportunity(n, Amount=9007199254740.93) for n in range(1, 11)]
    sync(deals)
    assert against(deals)[0].amounts[0]["crm_amount"] == Decimal("90071992547409.30")
    _, by_deal, by_stage = against([*deals[:9], deals[9] | {"Amount": 9007199254740.94}])
    assert short(by_deal) == [("stale", opp_id(10), "amount", "9007199254740.94", "9007199254740.93")]
    assert by_stage[0]["crm_amount"] - by_stage[0]["warehouse_amount"] == Decimal("0.01")


def test_what_a_listing_does_not_tell_is_not_compared(con, sync, against):
    sync([opportunity(1), opportunity(2)])
    listed = [opportunity(1, Amount=5), opportunity(2, StageName="Prospecting")]
    found, by_deal, by_stage = against(listed, columns=("Id", "SystemModstamp", "StageName"))
    assert found.kinds == {"stale": 1}
    assert short(by_deal) == [("stale", opp_id(2), "stage", "Prospecting", "Qualification")]
    assert {(r["stage"], r["crm_amount"], r["warehouse_amount"]) for r in by_stage} == {
        ("Prospecting", Decimal("2000.00"), None),
        ("Qualification", Decimal("1000.00"), Decimal("3000.00")),
    }


def test_a_stage_that_was_closed_after_its_deals_is_no_difference(con, sync, against):
    """The deal's own flag is of before, here and in the listing; both sides go by the stage."""
    closed = [row | {"IsClosed": True, "SystemModstamp": stamp(LATER)} for row in stage_rows() if row["MasterLabel"] == "Qualification"]
    sync([opportunity(1), opportunity(2, StageName="Prospecting")], OpportunityStage=[*stage_rows()[:1], *closed])
    assert con.execute("select crm_stage, is_closed from core.opportunity order by 1").fetchall() == [("Prospecting", False), ("Qualification", True)]
    assert against([opportunity(1), opportunity(2, StageName="Prospecting")])[0].kinds == {}


def test_half_a_listing_makes_nothing_gone_and_compares_no_totals(con, sync, against):
    sync([opportunity(1), opportunity(2)])
    found, by_deal, by_stage = against([opportunity(1, Amount=5)], whole=False)
    assert (found.whole, found.kinds) == (False, {"stale": 1})
    assert [r["kind"] for r in by_deal] == ["stale"]
    assert by_stage == []


def test_many_gone_at_once_are_a_permission_lost_rather_than_deals(con, sync, against):
    deals = [opportunity(n) for n in range(1, 101)]
    sync(deals)
    assert against(deals[21:])[0].too_many_gone
    assert not against(deals[20:])[0].too_many_gone


def test_comparing_again_in_one_run_replaces_what_it_found(con, sync, against):
    sync([opportunity(1), opportunity(2)])
    assert len(against([opportunity(1)])[1]) == 1
    assert len(against([opportunity(1)])[1]) == 1
    assert against([opportunity(1), opportunity(2)])[1] == []


def test_mending_brings_the_deals_in_line_and_says_which_are(con, sync, against, tmp_path):
    sync([opportunity(n) for n in range(1, 6)])
    con.execute("update core.opportunity set amount = 1, row_hash = row_hash where opportunity_id = ?", [opp_id(1)])
    con.execute("delete from core.opportunity where opportunity_id = ?", [opp_id(2)])
    con.execute("delete from raw.salesforce_opportunity where id = ?", [opp_id(2)])
    listed = [opportunity(n) for n in (1, 2, 4)] + [opportunity(5, StageName="Prospecting")]
    against(listed)
    marks = con.execute("from ops.watermark order by all").fetchall()
    ids = tmp_path / "ids"
    assert reconcile.to_mend(con, ids, run_id=RUN, source="sales", gone=True) == 4
    assert ids.read_text().split() == [opp_id(n) for n in (1, 2, 3, 5)]
    # The CRM's answer; deal 5 has moved on since it was listed, which is no reason to leave it.
    fetched = SalesforcePull(tmp_path / "fetch", 1)
    moved_on = opportunity(5, at=LATER, StageName="Closed Won", IsClosed=True, IsWon=True)
    fetched.add("Opportunity", [opportunity(1), opportunity(2), moved_on], watermark=None)
    manifest = Manifest("sales", "salesforce", "Opportunity.gone", "id", "incremental")
    data = orjson.dumps([{"id": opp_id(3)}])
    (fetched.landing.object_directory("Opportunity.gone") / "part-00000.json").write_bytes(data)
    manifest.files = [LandedFile("part-00000.json", "json_array", 1, len(data))]
    fetched._finish(manifest)
    directory = fetched.done()
    load(con, directory, now=LATER, mend=True)
    assert reconcile.check_mended(con, directory, run_id=RUN, gone=True) == 4
    assert {row["mended"] for level in ("deal", "stage") for row in rows_of(con, level)} == {True}
    rows = con.execute("select opportunity_id, amount, crm_stage, is_deleted, deleted_at from core.opportunity order by 1").fetchall()
    assert rows == [
        (opp_id(1), Decimal("1000.00"), "Qualification", False, None),
        (opp_id(2), Decimal("2000.00"), "Qualification", False, None),
        (opp_id(3), Decimal("3000.00"), "Qualification", True, LATER),
        (opp_id(4), Decimal("4000.00"), "Qualification", False, None),
        (opp_id(5), Decimal("5000.00"), "Closed Won", False, None),
    ]
    assert con.execute("from ops.watermark order by all").fetchall() == marks
    assert con.execute("select last_synced_at from core.source").fetchone() == (NOON,)


def test_a_deal_that_could_not_be_mended_is_not_called_mended(con, sync, against, tmp_path):
    sync([opportunity(1), opportunity(2)])
    against([opportunity(1, Amount=5), opportunity(2, Amount=5)])
    fetched = SalesforcePull(tmp_path / "fetch", 1).add("Opportunity", [opportunity(1, Amount=5), opportunity(2, Amount=5)], watermark=None).done()
    load(con, fetched, now=LATER, mend=True)
    con.execute("update core.opportunity set amount = 4 where opportunity_id = ?", [opp_id(2)])
    assert reconcile.check_mended(con, fetched, run_id=RUN, gone=True) == 1
    assert {r["opportunity_key"]: r["mended"] for r in rows_of(con, "deal")} == {f"sales:{opp_id(1)}": True, f"sales:{opp_id(2)}": False}
    assert {r["mended"] for r in rows_of(con, "stage")} == {False}


def test_a_field_that_only_mended_deals_brought_is_not_taken_for_known(con, sync, against, tmp_path):
    """Else the next sync would not read it of all the others."""
    sync([opportunity(1), opportunity(2)])
    fetched = SalesforcePull(tmp_path / "fetch", 1).add("Opportunity", [opportunity(1, Tier__c="Gold")], watermark=None).done()
    load(con, fetched, now=LATER, mend=True)
    assert con.execute("select count(*) from core.field where name = 'Tier__c'").fetchone() == (0,)
    assert con.execute("select custom ->> '$.Tier__c' from core.opportunity where opportunity_id = ?", [opp_id(1)]).fetchone() == ("Gold",)


def listed_in_hubspot(root, deals):
    """A HubSpot listing of live deals: few properties, as delivered."""
    names = ("dealstage", "pipeline", "amount", "deal_currency_code", "hs_lastmodifieddate")
    landing = Landing(root, "inbound", "20261121T000000-0001")
    data = b"".join(
        orjson.dumps({"id": d["id"], "properties": {n: d["properties"][n] for n in names}, "archived": False}) + b"\n" for d in deals
    )
    (landing.object_directory("deals.ids") / "part-00000.ndjson").write_bytes(data)
    manifest = Manifest("inbound", "hubspot", "deals.ids", "id", "full", complete=True)
    manifest.files, manifest.fields = [LandedFile("part-00000.ndjson", "ndjson", len(deals), len(data))], [CrmField(n, "string") for n in names]
    landing.finish_object(manifest)
    return landing.finish(Pull("inbound", "hubspot", landing.directory.name, True, ["deals.ids"]))


def test_hubspot_deals_in_a_pipeline_that_no_sync_has_seen(con, tmp_path):
    load(con, inbound(tmp_path, 1, [deal(1), deal(2, amount=""), deal(3, deal_currency_code=None)], full=True, pipelines=[pipeline()]), now=NOON)
    listing = [deal(1), deal(2, amount=None), deal(3, deal_currency_code=""), deal(4, pipeline="77", dealstage="901", amount="12.345")]
    found = reconcile.compare(con, listed_in_hubspot(tmp_path / "listing", listing), run_id=RUN, now=LATER)
    assert found.kinds == {"missing": 1}
    (row,) = rows_of(con, "stage", "inbound")
    assert (row["pipeline"], row["stage"], row["crm_deals"], row["warehouse_deals"]) == ("77", "901", 1, 0)
    assert row["crm_amount"] == con.execute("select '12.345'::decimal(18, 2)").fetchone()[0]


def test_sources_that_were_never_synced_are_named(con, sync):
    sync([opportunity(1)])
    assert reconcile.never_synced(con, ["sales", "inbound"]) == ["inbound"]
