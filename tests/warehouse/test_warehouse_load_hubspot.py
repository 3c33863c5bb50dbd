"""HubSpot pulls become opportunities: text to types, instants to days, associations, archives and merges."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from warehouse_land import (
    NOON,
    PORTAL,
    company,
    counts,
    deal,
    deals_of,
    hs,
    inbound,
    one,
    opportunity,
    past,
    pipeline,
    rows,
    sales,
)

from warehouse.load import load

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_deal_as_people_see_it(con: Any, tmp_path: Path) -> None:
    record = deal(
        9, contacts=["31", "32"], companies=["52", "51"], amount="1234.5600000000001", hs_next_step="Call", dealstage="contractsent",
        hs_manual_forecast_category="BEST_CASE", hs_v2_date_entered_current_stage=hs(NOON - 4 * DAY), closed_lost_reason="Price",
        notes_last_updated=hs(NOON - DAY), notes_next_activity_date=hs(NOON + DAY), hs_deal_stage_probability="0.899999976158142",
        vertical="Energy",
    )  # fmt: skip
    load(con, inbound(tmp_path, 1, [record], full=True), now=NOON)
    found = deals_of(con)["9"]
    expected = {
        "opportunity_key": "inbound:9", "crm": "hubspot", "url": "https://app.hubspot.com/contacts/42/record/0-3/9", "account_id": "52",
        "account_name": "Südwind AG", "owner_name": "Cleo Maker", "owner_active": True, "pipeline": "Sales Pipeline",
        "pipeline_id": "default",
        "crm_stage": "contractsent", "crm_stage_label": "Contract Sent", "stage": "negotiation", "stage_rank": 4, "is_closed": False,
        "amount": Decimal("1234.56"), "probability": Decimal("0.9"), "forecast_category": "best_case", "next_step": "Call",
        "close_date": date(2026, 12, 31),  # 23:00 UTC is the next day in Berlin
        "stage_entered_at": NOON - 4 * DAY, "stage_default_probability": Decimal("0.9"), "contact_count": 2, "lost_reason": "Price",
        "last_activity_at": NOON - DAY, "next_activity_at": NOON + DAY, "activity_capability": "full", "created_at": NOON - 30 * DAY,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert orjson.loads(found["custom"])["vertical"] == "Energy"
    assert [r["contact_id"] for r in rows(con, "from core.contact_role order by 2")] == ["31", "32"]
    assert one(con, "select team, is_seller from core.owner where owner_id = '7'") == {"team": "North", "is_seller": True}


def test_the_numbers_that_hubspot_blurs_are_sharp_again(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1)], full=True), now=NOON)
    assert deals_of(con)["1"]["probability"] == Decimal("0.4")


def test_properties_in_another_order_are_the_same_deal(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1), deal(2)], full=True), now=NOON)
    shuffled = deal(1)
    shuffled["properties"] = dict(reversed(shuffled["properties"].items()))
    assert counts(load(con, inbound(tmp_path, 2, [shuffled]), now=NOON + DAY), "deals") == (0, 0, 1, 0, 0)


def test_stamps_and_our_own_fields_are_echoes(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1)], full=True), now=NOON)
    written = deal(
        1, NOON, hs_lastmodifieddate=hs(NOON + HOUR), plumbline_status="at_risk", plumbline_score="40", hs_updated_by_user_id="99",
        hs_time_in_qualifiedtobuy="123", days_to_close="41", notes_next_activity_date=hs(NOON + 5 * DAY),
    )  # fmt: skip
    result = load(con, inbound(tmp_path, 2, [written]), now=NOON + DAY)
    assert counts(result, "deals") == (0, 0, 0, 1, 0)
    assert one(con, "select status, score from core.crm_flag") == {"status": "at_risk", "score": 40}
    assert deals_of(con)["1"]["next_activity_at"] == NOON + 5 * DAY


def test_the_flags_of_the_crm_come_from_the_record_or_from_the_pipeline(con: Any, tmp_path: Path) -> None:
    unsaid = {"hs_is_closed": None, "hs_is_closed_won": None, "hs_deal_stage_probability": None}
    deals = [
        deal(1, dealstage="closedwon", **unsaid), deal(2, dealstage="closedlost", **unsaid), deal(3, **unsaid),
        deal(4, dealstage="900", pipeline="p2", hs_is_closed="true", hs_is_closed_won="true"), deal(5, dealstage="gone", pipeline="old"),
    ]  # fmt: skip
    second = pipeline("p2", "Partner", [("901", "Pitch", 0.5, False)])
    load(con, inbound(tmp_path, 1, deals, full=True, pipelines=[pipeline(), second]), now=NOON)
    found = {key: (d["stage"], d["is_closed"], d["is_won"], d["pipeline"]) for key, d in deals_of(con).items()}
    assert found == {
        "1": ("closed_won", True, True, "Sales Pipeline"), "2": ("closed_lost", True, False, "Sales Pipeline"),
        "3": ("qualified", False, False, "Sales Pipeline"), "4": ("closed_won", True, True, "Partner"),
        "5": ("unmapped", False, False, "old"),
    }  # fmt: skip
    assert deals_of(con)["1"]["probability"] == 1


def test_archived_restored_and_purged(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1), deal(2), deal(3)], full=True), now=NOON)
    bin_ = [{**deal(1), "archived": True, "archivedAt": hs(NOON + HOUR)}, {**deal(8), "archived": True, "archivedAt": hs(NOON - DAY)}]
    result = load(con, inbound(tmp_path, 2, [deal(1)], archived=bin_, gone=[{"id": "2"}]), now=NOON + DAY)  # search is behind
    assert counts(result, "deals") == (1, 0, 0, 0, 2)
    found = {key: d["deleted_at"] for key, d in deals_of(con).items() if d["is_deleted"]}
    assert found == {"1": NOON + HOUR, "2": NOON + DAY, "8": NOON - DAY}
    result = load(con, inbound(tmp_path, 3, [deal(1)], archived=[bin_[1]]), now=NOON + 2 * DAY)  # restored, with its old stamp
    assert counts(result, "deals") == (0, 1, 0, 0, 0)
    assert not deals_of(con)["1"]["is_deleted"]
    result = load(con, inbound(tmp_path, 4, [deal(1)], full=True, archived=[]), now=NOON + 3 * DAY)
    assert counts(result, "deals") == (0, 0, 1, 0, 1)  # 3 is missing from a complete listing; 8 stays what it was
    assert {key for key, d in deals_of(con).items() if d["is_deleted"]} == {"2", "3", "8"}


def test_merged_deals_point_to_the_survivor_and_stay_gone(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1), deal(2), deal(3)], full=True), now=NOON)
    survivor = deal(3, NOON + HOUR, hs_merged_object_ids="1;77")
    result = load(con, inbound(tmp_path, 2, [survivor]), now=NOON + DAY)
    assert counts(result, "deals") == (0, 1, 0, 0, 1)
    loser = deals_of(con)["1"]
    assert (loser["is_deleted"], loser["merged_into"], loser["deleted_at"]) == (True, "inbound:3", NOON + DAY)
    final = deal(2, NOON + 3 * HOUR, hs_merged_object_ids="3;1;77")
    load(con, inbound(tmp_path, 3, [final]), now=NOON + 2 * DAY)
    found = {key: (d["is_deleted"], d["merged_into"]) for key, d in deals_of(con).items()}
    assert found == {"1": (True, "inbound:3"), "2": (False, None), "3": (True, "inbound:2")} or found == {
        "1": (True, "inbound:2"), "2": (False, None), "3": (True, "inbound:2"),
    }  # fmt: skip
    result = load(con, inbound(tmp_path, 4, [final]), now=NOON + 3 * DAY)
    assert counts(result, "deals") == (0, 0, 1, 0, 0)
    assert deals_of(con)["1"]["deleted_at"] == NOON + DAY


def test_associations_move_no_stamp_and_still_arrive(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, contacts=["31"], companies=["51"]), deal(2)], full=True), now=NOON)
    links = [{"id": "1", "contacts": ["32", "31"], "companies": [{"id": "51", "primary": False}, {"id": "52", "primary": True}]},
             {"id": "2", "contacts": [], "companies": []}]  # fmt: skip
    result = load(con, inbound(tmp_path, 2, [], associations=links), now=NOON + DAY)
    assert counts(result, "deals") == (0, 1, 0, 0, 0)
    found = deals_of(con)
    assert (found["1"]["contact_count"], found["1"]["account_name"], found["2"]["contact_count"]) == (2, "Südwind AG", 0)
    # Tonight the token may not see companies: those known stay.
    result = load(con, inbound(tmp_path, 3, [], associations=[{"id": "1", "contacts": ["31"]}]), now=NOON + 2 * DAY)
    found = deals_of(con)
    assert (found["1"]["contact_count"], found["1"]["account_name"]) == (1, "Südwind AG")


def test_the_label_of_a_contact_is_its_role(con: Any, tmp_path: Path) -> None:
    def roles() -> dict[str, str | None]:
        return {r["contact_id"]: r["role"] for r in rows(con, "from core.contact_role")}

    def labelled(**contacts: list[str]) -> list[dict[str, Any]]:
        return [{"id": "1", "contacts": [{"id": key.strip("c"), "labels": labels} for key, labels in contacts.items()], "companies": []}]

    record = deal(1, contacts=["31", "32"])
    record["associations"]["contacts"]["results"].append({"id": "31", "type": "decision_maker"})
    both = labelled(c31=["Budget holder", "Decision maker"], c32=[])
    load(con, inbound(tmp_path, 1, [record], full=True, associations=both), now=NOON)
    assert roles() == {"31": "Budget holder; Decision maker", "32": None}
    # Another label moves no stamp, and neither does taking one away.
    load(con, inbound(tmp_path, 2, [], associations=labelled(c31=["Budget holder"], c32=["Champion"])), now=NOON + DAY)
    assert roles() == {"31": "Budget holder", "32": "Champion"}
    # A listing says that there is a label, and not which: what is known stays. Where it shows none, there is none.
    load(con, inbound(tmp_path, 3, [record], full=True), now=NOON + 2 * DAY)
    assert roles() == {"31": "Budget holder", "32": "Champion"}
    load(con, inbound(tmp_path, 4, [deal(1, contacts=["31", "32"])], full=True), now=NOON + 3 * DAY)
    assert roles() == {"31": None, "32": None}


def test_stages_without_a_closed_flag_are_closed_by_their_probability(con: Any, tmp_path: Path) -> None:
    bare = pipeline()
    for stage in bare["stages"]:
        del stage["metadata"]["isClosed"]
    stages = ("closedwon", "closedlost", "contractsent")
    deals = [deal(n, dealstage=s, hs_is_closed=None, hs_is_closed_won=None) for n, s in enumerate(stages, 1)]
    load(con, inbound(tmp_path, 1, deals, full=True, pipelines=[bare]), now=NOON)
    found = [(d["is_closed"], d["is_won"], d["stage"]) for _, d in sorted(deals_of(con).items())]
    assert found == [(True, True, "closed_won"), (True, False, "closed_lost"), (False, False, "negotiation")]


def test_close_dates_in_every_spelling(con: Any, tmp_path: Path) -> None:
    spellings = ("2026-12-30T23:00:00.000Z", "2026-12-30T23:00:00Z", "2026-12-31", "1798671600000")
    result = load(con, inbound(tmp_path, 1, [deal(n, closedate=s) for n, s in enumerate(spellings)], full=True), now=NOON)
    assert {d["close_date"] for d in deals_of(con).values()} == {date(2026, 12, 31)}
    assert not next(c.notice for c in result if c.object == "deals")


def test_a_listing_without_associations_falls_back_on_hubspots_count(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, num_associated_contacts="3"), deal(2, num_associated_contacts=None)], full=True), now=NOON)
    assert {key: d["contact_count"] for key, d in deals_of(con).items()} == {"1": 3, "2": None}


def test_companies_that_were_merged_hand_over_their_deals(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, companies=["51"])], full=True), now=NOON)
    merged = [company("52", "Südwind AG", NOON + HOUR, hs_merged_object_ids="51")]
    load(con, inbound(tmp_path, 2, [], companies=merged), now=NOON + DAY)
    assert deals_of(con)["1"]["account_name"] == "Südwind AG"
    assert one(con, "select is_deleted, merged_into from core.account where account_id = '51'") == {
        "is_deleted": True, "merged_into": "inbound:52",
    }  # fmt: skip


def test_property_history_tells_moves_pushes_and_next_steps(con: Any, tmp_path: Path) -> None:
    day = [NOON - (30 - i) * DAY for i in range(31)]
    told = past(
        1,
        dealstage=[(day[0], "appointmentscheduled"), (day[3], "qualifiedtobuy"), (day[20], "closedwon")],
        closedate=[
            (day[0], "2026-10-30T22:00:00Z"), (day[5], "2026-11-20T23:00:00Z"),
            (day[20] - timedelta(seconds=0.4), "2026-12-24T11:00:00Z"),
        ],
        hs_next_step=[(day[2], "Call"), (day[4], "Call"), (day[6], "")],
        pipeline=[(day[0], "default")],
    )
    closed = deal(1, day[20], dealstage="closedwon", hs_is_closed="true", hs_is_closed_won="true", closedate="2026-12-24T11:00:00Z")
    load(con, inbound(tmp_path, 1, [closed], full=True, history=[told]), now=NOON)
    found = deals_of(con)["1"]
    assert (found["closed_at"], found["stage_entered_at"], found["next_step_changed_at"]) == (day[20], day[20], day[6])
    assert found["close_date_pushes"] == 1  # closing the deal overwrote its date; that was no push
    moves = rows(con, "select from_stage, to_stage, kind from core.stage_event order by \"at\"")
    assert [tuple(move.values()) for move in moves] == [
        (None, "prequalified", "enter"), ("prequalified", "qualified", "advance"), ("qualified", "closed_won", "won"),
    ]  # fmt: skip
    # HubSpot forgets old values; what was once told stays.
    forgetful = past(1, dealstage=[(day[20], "closedwon"), (day[25], "qualifiedtobuy")])
    reopened = deal(1, NOON + HOUR, closedate="2026-12-24T11:00:00Z")
    load(con, inbound(tmp_path, 2, [reopened], history=[forgetful]), now=NOON + DAY)
    assert one(con, "select count(*) as n from core.stage_event")["n"] == 4
    assert (deals_of(con)["1"]["closed_at"], deals_of(con)["1"]["stage_entered_at"]) == (None, day[25])


def test_a_last_activity_in_the_future_counts_from_its_time_on(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, notes_last_updated=hs(NOON + 5 * HOUR))], full=True), now=NOON)
    assert deals_of(con)["1"]["last_activity_at"] == NOON
    result = load(con, inbound(tmp_path, 2, []), now=NOON + DAY)
    assert deals_of(con)["1"]["last_activity_at"] == NOON + 5 * HOUR
    assert counts(result, "deals") == (0, 0, 0, 0, 0)


def test_money_of_the_portal_is_taken_when_it_is_the_business_currency(con: Any, tmp_path: Path) -> None:
    deals = [deal(1, deal_currency_code="USD", amount="100", amount_in_home_currency="91.5"), deal(2, deal_currency_code=None)]
    load(con, inbound(tmp_path, 1, deals, full=True), now=NOON)
    found = deals_of(con)
    assert (found["1"]["amount_home"], found["1"]["fx_rate"]) == (Decimal("91.50"), Decimal("0.915"))
    assert (found["2"]["currency"], found["2"]["amount_home"]) == ("EUR", 2000)


def rate(key: int, conversion: float, at: datetime, currency: str = "USD") -> dict[str, Any]:
    return {"id": str(key), "fromCurrencyCode": currency, "toCurrencyCode": "EUR", "conversionRate": conversion, "effectiveAt": hs(at)}


def test_open_deals_follow_a_new_rate_and_closed_ones_keep_theirs(con: Any, tmp_path: Path) -> None:
    """HubSpot moves no stamp when a rate is set: the deals are not in the second night's files."""
    usd = {"deal_currency_code": "USD", "amount": "100", "amount_in_home_currency": "91.5"}
    won = {"dealstage": "closedwon", "hs_is_closed": "true", "hs_is_closed_won": "true"}
    deals = [deal(1, **usd, closedate=hs(NOON + 90 * DAY)), deal(2, **usd, **won), deal(3), deal(4, **usd, closedate=hs(NOON - 90 * DAY))]
    first = [rate(1, 0.9, NOON - 400 * DAY), rate(2, 0.915, NOON - 2 * DAY)]
    load(con, inbound(tmp_path, 1, deals, full=True, rates=first), now=NOON)
    converted = Decimal("91.50")
    assert {key: d["amount_home"] for key, d in deals_of(con).items()} == {"1": converted, "2": converted, "3": 3000, "4": converted}

    later = [*first, rate(3, 0.8, NOON + HOUR), rate(4, 0.7, NOON + 5 * DAY)]
    load(con, inbound(tmp_path, 2, [], rates=later), now=NOON + 2 * DAY)
    assert {key: d["amount_home"] for key, d in deals_of(con).items()} == {"1": 80, "2": converted, "3": 3000, "4": 80}
    assert one(con, "select amount_home from core.opportunity_version where opportunity_key = 'inbound:1'")["amount_home"] == 80
    assert [(r["currency"], float(r["rate"])) for r in rows(con, "select currency, rate from core.exchange_rate order by valid_from")] == [
        ("USD", 0.9), ("USD", 0.915), ("USD", 0.8),
    ]  # fmt: skip

    load(con, inbound(tmp_path, 3, [], rates=later), now=NOON + 6 * DAY)
    assert deals_of(con)["1"]["amount_home"] == 70, "a rate that was told before its day holds from that day on"


def test_money_of_another_home_currency_is_converted_with_the_rates_of_any_source(con: Any, tmp_path: Path) -> None:
    """The portal counts in dollars, the business in euros, and only Salesforce knows rates; it is loaded later."""
    portal = PORTAL | {"currency": "USD"}
    deals = [deal(1, deal_currency_code="USD", amount="100", amount_in_home_currency="100"), deal(2, amount="5")]
    load(con, inbound(tmp_path, 1, deals, full=True, org=portal), now=NOON, business={"currency": "EUR"})
    assert {key: d["amount_home"] for key, d in deals_of(con).items()} == {"1": None, "2": 5}
    rates = [{"Id": f"01L{i}", "IsoCode": c, "ConversionRate": r} for i, (c, r) in enumerate([("EUR", 1.0), ("USD", 1.25)])]
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True, CurrencyType=rates), now=NOON, business={"currency": "EUR"})
    assert {key: d["amount_home"] for key, d in deals_of(con).items() if d["source"] == "inbound"} == {"1": 80, "2": 5}
    assert one(con, "select amount_home from core.opportunity_version where opportunity_key = 'inbound:1'")["amount_home"] == 80


def test_bad_values_become_empty_and_are_counted_aloud(con: Any, tmp_path: Path) -> None:
    result = load(con, inbound(tmp_path, 1, [deal(1, amount="lots", closedate="whenever"), deal(2)], full=True), now=NOON)
    assert (deals_of(con)["1"]["amount"], deals_of(con)["1"]["close_date"]) == (None, None)
    notice = next(c.notice for c in result if c.object == "deals")
    assert notice == "values that cannot be read and were left empty: 1 of amount, 1 of closedate"


def test_an_older_copy_from_a_slow_index_does_not_overwrite_a_newer_one(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, NOON, amount="2")], full=True), now=NOON)
    load(con, inbound(tmp_path, 2, [deal(1, NOON - HOUR, amount="1")]), now=NOON + DAY)
    assert deals_of(con)["1"]["amount"] == 2


def test_owners_who_left_and_queues_do_not_work_deals(con: Any, tmp_path: Path) -> None:
    owners = [
        {"id": "7", "email": "q@acme.example", "firstName": "", "lastName": "", "type": "QUEUE", "archived": False},
        {"id": "8", "email": "dan@acme.example", "firstName": "Dan", "lastName": "Left", "type": "PERSON", "archived": True},
    ]
    deals = [deal(1), deal(2, hubspot_owner_id="8"), deal(3, hubspot_owner_id="404"), deal(4, hubspot_owner_id="")]
    load(con, inbound(tmp_path, 1, deals, full=True, owners=owners), now=NOON)
    found = {key: (d["owner_id"], d["owner_name"], d["owner_active"]) for key, d in deals_of(con).items()}
    assert found == {
        "1": ("7", "q@acme.example", False), "2": ("8", "Dan Left", False), "3": ("404", None, None), "4": (None, None, None),
    }  # fmt: skip


def test_the_business_follows_the_configuration_then_the_first_source(con: Any, tmp_path: Path) -> None:
    from warehouse.business import business_of

    load(con, inbound(tmp_path, 1, [deal(1)], full=True, org=PORTAL | {"timezone": "America/Denver", "currency": "USD"}), now=NOON)
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON + DAY)
    told = business_of(con)
    assert (told.timezone, told.currency, told.fiscal_year_start_month) == ("America/Denver", "USD", 2)
    assert business_of(con, timezone="Asia/Tokyo").timezone == "Asia/Tokyo"
    night = datetime(2026, 11, 21, 5, tzinfo=UTC)
    assert told.date_of(night) == date(2026, 11, 20)
    assert told.start_of(date(2026, 11, 20)) == datetime(2026, 11, 20, 7, tzinfo=UTC)


def test_a_stamp_from_the_future_does_not_hide_what_comes_before_it(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1)], full=True), now=NOON - DAY)  # its watermark is NOON
    assert one(con, "select watermark from ops.watermark where object = 'deals'") == {"watermark": NOON - DAY}
