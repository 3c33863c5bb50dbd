"""Text becomes types with nothing lost: exact where it can be read, kept and told where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warehouse_land import NOON, company, deal, deals_of, hs, inbound, one, opportunity, past, rows, sales

from warehouse.derive import HERE
from warehouse.load import load

DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BERLIN = "Europe/Berlin"
CENT = Decimal("0.01")


@pytest.fixture(scope="module")
def reader() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.execute("set variable timezone = $1", [BERLIN])
        con.execute((HERE / "core/value.sql").read_text())
        deal_sql = (HERE / "hubspot/deal.sql").read_text()
        con.execute(deal_sql[deal_sql.index("create or replace temp macro day_of") : deal_sql.index("-- category_of")])
        yield con


def read(con: duckdb.DuckDBPyConnection, macro: str, text: str | None) -> Any:
    return con.execute(f"select {macro}($1)", [text]).fetchall()[0][0]


MONEY = st.decimals(Decimal("-9999999999999999.99"), Decimal("9999999999999999.99"), places=2, allow_nan=False)


@given(MONEY)
def test_an_amount_survives_its_text_to_the_cent(reader: Any, amount: Decimal) -> None:
    for text in (str(amount), f"{amount:E}", f"  {amount} ", f"{amount}0000000"):
        assert read(reader, "money_of", text) == amount
    if abs(amount) >= 1000:  # with both marks there is no doubt what each of them is
        english = f"{amount:,.2f}"
        german = english.replace(",", "x").replace(".", ",").replace("x", ".")
        assert read(reader, "money_of", english) == read(reader, "money_of", german) == amount


@given(st.decimals(Decimal("-99999999999"), Decimal("99999999999"), places=2, allow_nan=False))
def test_the_noise_of_a_double_is_no_money(reader: Any, amount: Decimal) -> None:
    assert read(reader, "money_of", format(Decimal(float(amount)), "f")) == amount.quantize(CENT, ROUND_HALF_UP)


@given(st.datetimes(datetime(1974, 1, 1), datetime(9999, 12, 29)).map(lambda at: at.replace(tzinfo=UTC, microsecond=at.microsecond // 1000 * 1000)))
def test_an_instant_is_the_same_in_both_spellings(reader: Any, at: datetime) -> None:
    spellings = hs(at).rjust(24, "0"), str((at - EPOCH) // timedelta(milliseconds=1)), at.astimezone(ZoneInfo("America/Denver")).isoformat()
    for text in spellings:
        assert read(reader, "instant_of", text) == at
        assert read(reader, "day_of", text) == at.astimezone(ZoneInfo(BERLIN)).date()


@given(st.dates(date(2, 1, 1), date(9999, 12, 30)))
def test_a_day_is_its_midnight_in_utc(reader: Any, day: date) -> None:
    midnight = (datetime(day.year, day.month, day.day, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    for text in (day.isoformat(), str(midnight), f"{day.isoformat()}T00:00:00.000Z"):
        assert read(reader, "date_of", text) == day
    assert read(reader, "day_of", day.isoformat()) == day


@given(st.text(max_size=24) | st.from_regex(r"[-+]?[0-9.,eE:TZ/]{1,24}", fullmatch=True))
def test_no_text_whatever_stops_a_load(reader: Any, text: str) -> None:
    for macro in ("money_of", "share_of", "truth_of", "number_of", "instant_of", "date_of", "day_of"):
        read(reader, macro, text.replace("\0", ""))


@pytest.mark.parametrize(
    ("macro", "text"),
    [
        ("money_of", "1,234"), ("money_of", "€ 5"), ("money_of", "NaN"), ("money_of", "1e400"), ("money_of", "12345678901234567"),
        ("money_of", "1.23.456"), ("money_of", ""), ("money_of", None), ("share_of", "40"), ("share_of", "-0.1"), ("truth_of", "maybe"),
        ("truth_of", ""), ("instant_of", "infinity"), ("instant_of", "epoch"), ("instant_of", "+020226-12-31T00:00:00.000Z"),
        ("instant_of", "20261231"), ("instant_of", "1798671600"), ("instant_of", "999999999999999"), ("instant_of", "2026-02-30T10:00:00Z"),
        ("day_of", "99999-01-01"), ("day_of", "2026-02-30"), ("day_of", "31.12.2026"), ("date_of", "soon"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_not_guessed(reader: Any, macro: str, text: str | None) -> None:
    assert read(reader, macro, text) is None


def test_what_cannot_be_read_is_told_until_somebody_mends_it(con: Any, tmp_path: Path) -> None:
    bad = [
        deal(1, amount="lots", closedate="+020226-12-31T00:00:00.000Z", hs_deal_stage_probability="40"), deal(2, amount="1,234"),
        deal(3, hs_is_closed="maybe", hs_v2_date_entered_current_stage="once", notes_next_activity_date="infinity", amount=" "),
    ]  # fmt: skip
    result = load(con, inbound(tmp_path, 1, bad, full=True), now=NOON)
    assert next(c.notice for c in result if c.object == "deals") == (
        "values that cannot be read and were left empty: 2 of amount, 1 of closedate, 1 of hs_deal_stage_probability, "
        "1 of hs_is_closed, 1 of hs_v2_date_entered_current_stage, 1 of notes_next_activity_date"
    )
    found = deals_of(con)
    assert [found[n]["amount"] for n in "123"] == [None] * 3
    assert found["1"]["probability"] == Decimal("0.4")  # the stage's own: 40 is no share
    told = rows(con, "select column_name, records, example, expected from core.unparsed order by 1")
    assert [tuple(row.values()) for row in told] == [
        ("amount", 2, "1", "number"), ("close_date", 1, "1", "date"), ("is_closed", 1, "3", "boolean"),
        ("next_activity_at", 1, "3", "instant"), ("probability", 1, "1", "share"), ("stage_entered_at", 1, "3", "instant"),
    ]  # fmt: skip
    assert one(con, "select payload ->> '$.amount' as kept from raw.hubspot_deal where id = '2'") == {"kept": "1,234"}

    mended = deal(1, NOON + timedelta(hours=1), amount="5")
    result = load(con, inbound(tmp_path, 2, [mended]), now=NOON + DAY)
    assert next(c.notice for c in result if c.object == "deals") is None
    left = one(con, "select records, example, first_seen_at, last_seen_at from core.unparsed where property = 'amount'")
    assert left == {"records": 1, "example": "2", "first_seen_at": NOON, "last_seen_at": NOON + DAY}

    bin_ = [{**record, "archived": True, "archivedAt": hs(NOON)} for record in bad[1:]]
    load(con, inbound(tmp_path, 3, [], archived=bin_), now=NOON + 2 * DAY)
    assert rows(con, "from core.unparsed") == []


def test_a_property_that_was_cleared_is_null_and_no_empty_text(con: Any, tmp_path: Path) -> None:
    """HubSpot answers '' for a value that was taken away, Salesforce null: `is null` must find both."""
    names = "dealname dealtype description hs_next_step closed_lost_reason deal_currency_code hubspot_owner_id amount closedate"
    load(con, inbound(tmp_path, 1, [deal(1, **dict.fromkeys(names.split(), ""))], full=True), now=NOON)
    found = one(con, "select name, type, description, next_step, lost_reason, owner_id, amount, close_date from core.opportunity")
    assert set(found.values()) == {None}
    texts = "(select columns(*)::varchar from core.opportunity)"
    assert rows(con, f"select name from (unpivot {texts} on columns(*) into name name value said) where said = ''") == []


def test_a_mapped_property_is_judged_by_its_type_and_kept_as_text(con: Any, tmp_path: Path) -> None:
    fields = {"need": "budget_confirmed", "fit": "seats", "terms": "signed_on", "approval": "approved_at", "lost_reason": "why"}
    types = {"budget_confirmed": "bool", "seats": "number", "signed_on": "date", "approved_at": "datetime", "why": "string"}
    deals = [
        deal(1, budget_confirmed="TRUE", seats="1.234,56", signed_on="1798675200000", approved_at=hs(NOON), why="-"),
        deal(2, budget_confirmed="perhaps", seats="a few", signed_on="soon", approved_at="20261231", why="7"),
        deal(3, budget_confirmed="", seats=None, signed_on="", approved_at="", why=""),
    ]
    load(con, inbound(tmp_path, 1, deals, full=True, types=types), now=NOON, fields=fields)
    told = {row["column_name"]: (row["property"], row["expected"], row["example"]) for row in rows(con, "from core.unparsed")}
    assert told == {
        "evidence.need": ("budget_confirmed", "boolean", "2"), "evidence.fit": ("seats", "number", "2"),
        "evidence.terms": ("signed_on", "date", "2"), "evidence.approval": ("approved_at", "instant", "2"),
    }  # fmt: skip
    assert orjson.loads(deals_of(con)["2"]["evidence"])["fit"] == "a few"
    load(con, inbound(tmp_path, 2, [], types=types), now=NOON + DAY, fields={})
    assert rows(con, "from core.unparsed") == []  # nobody counts on them any more


def test_the_past_and_the_companies_are_read_as_carefully(con: Any, tmp_path: Path) -> None:
    told = past(1, amount=[(NOON - 5 * DAY, "1.500,50"), (NOON - 4 * DAY, "plenty"), (NOON - 3 * DAY, "1000")], closedate=[(NOON - 5 * DAY, "x")])
    told["propertiesWithHistory"]["amount"][2]["timestamp"] = str(int((NOON - 5 * DAY).timestamp() * 1000))
    companies = [company("51", "Nordwind GmbH", numberofemployees="51-200"), company("52", "Südwind AG", numberofemployees="")]
    result = load(con, inbound(tmp_path, 1, [deal(1)], full=True, history=[told], companies=companies), now=NOON)
    assert {c.object: c.notice for c in result if c.notice} == {
        "companies": "values that cannot be read and were left empty: 1 of numberofemployees",
        "deals.history": "values that cannot be read and were left empty: 1 of amount, 1 of closedate",
    }
    found = rows(con, "select object, column_name, example from core.unparsed order by 1, 2")
    assert [tuple(row.values()) for row in found] == [
        ("companies", "account.employees", "51"), ("deals.history", "opportunity_version.amount", "1"),
        ("deals.history", "opportunity_version.close_date", "1"),
    ]  # fmt: skip
    first = one(con, "select amount from core.opportunity_version where valid_from = $1", NOON - 5 * DAY)
    assert first == {"amount": Decimal("1500.50")}
    load(con, inbound(tmp_path, 2, [], companies=[company("51", "Nordwind GmbH", NOON + DAY, numberofemployees="60")]), now=NOON + DAY)
    assert [row["object"] for row in rows(con, "from core.unparsed order by object")] == ["deals.history", "deals.history"]


def test_our_own_dates_come_back_as_midnights(con: Any, tmp_path: Path) -> None:
    ours = {"status": "at_risk", "score": "1e400", "flagged_since": "1798675200000", "snooze_until": "2027-01-05"}
    record = deal(1, **{f"plumbline_{name}": value for name, value in ours.items()})
    load(con, inbound(tmp_path, 1, [record], full=True), now=NOON)
    flag = one(con, "select score, flagged_since, snooze_until from core.crm_flag")
    assert flag == {"score": None, "flagged_since": date(2026, 12, 31), "snooze_until": date(2027, 1, 5)}


def test_money_without_room_stops_no_night(con: Any, tmp_path: Path) -> None:
    deals = [deal(1, amount="0.01", amount_in_home_currency="9999999999999", deal_currency_code="USD"), deal(2)]
    load(con, inbound(tmp_path, 1, deals, full=True), now=NOON)
    assert one(con, "select amount, fx_rate from core.opportunity where opportunity_id = '1'") == {"amount": CENT, "fx_rate": None}
    rates = [{"Id": f"01L{i}", "IsoCode": c, "ConversionRate": r} for i, (c, r) in enumerate([("EUR", 1.0), ("BTC", 0.00001)])]
    huge = opportunity(1, Amount=9999999999999999, CurrencyIsoCode="BTC", Probability=12345)
    load(con, sales(tmp_path, 1, [huge, opportunity(2)], full=True, CurrencyType=rates), now=NOON)
    sold = one(con, "select amount, amount_home, probability from core.opportunity where source = 'sales' and currency = 'BTC'")
    assert sold == {"amount": Decimal("9999999999999999.00"), "amount_home": None, "probability": None}
