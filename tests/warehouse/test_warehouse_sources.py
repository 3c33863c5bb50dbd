"""Several CRMs in one warehouse: days and money mean the same for all of them, and none takes what is another's."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from warehouse_land import NOON, PORTAL, deal, deals_of, inbound, opp_id, opportunity, rows, sales

from warehouse.load import load

EUROS = {"EUR": 1.0, "USD": 1.25, "CHF": 0.95}
DOLLARS = {"USD": 1.0, "EUR": 0.5, "CHF": 2.0}


def currencies(rates: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Id": f"01L{code}", "IsoCode": code, "ConversionRate": rate} for code, rate in rates.items()]


def home(con: Any, source: str) -> dict[str, Decimal | None]:
    return {row["name"]: row["amount_home"] for row in rows(con, "from core.opportunity where source = ? order by name", source)}


def test_a_source_that_changes_the_business_takes_the_others_along_the_same_night(con: Any, tmp_path: Path) -> None:
    """Both are new tonight and `inbound`, in dollars and in Denver, comes first by name: no deal stays in euros or in Berlin."""
    deals = [
        opportunity(1, Name="euros", CurrencyIsoCode="EUR", Amount=100.0),
        opportunity(2, Name="francs", CurrencyIsoCode="CHF", Amount=95.0),
    ]
    load(con, sales(tmp_path, 1, deals, full=True, CurrencyType=currencies(EUROS)), now=NOON)
    assert home(con, "sales") == {"euros": 100, "francs": 100}
    portal = PORTAL | {"timezone": "America/Denver", "currency": "USD"}
    in_euros = deal(1, deal_currency_code="EUR", amount="8", amount_in_home_currency=None)
    load(con, inbound(tmp_path, 1, [in_euros], full=True, org=portal), now=NOON)
    assert home(con, "sales") == {"euros": 125, "francs": 125}
    assert [d["amount_home"] for d in deals_of(con).values() if d["source"] == "inbound"] == [10]
    assert rows(con, "select distinct home_currency, business_timezone from core.source") == [
        {"home_currency": "USD", "business_timezone": "America/Denver"}
    ]


def test_a_configured_zone_reaches_sources_that_are_not_synced_tonight(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, closedate="2026-11-30T23:30:00Z")], full=True), now=NOON)
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    assert deals_of(con)["1"]["close_date"] == date(2026, 12, 1)    # in Berlin
    load(con, sales(tmp_path, 2, []), now=NOON, business={"timezone": "America/Denver"})
    assert deals_of(con)["1"]["close_date"] == date(2026, 11, 30)


def test_two_orgs_of_one_crm_keep_their_own_rates(con: Any, tmp_path: Path) -> None:
    francs = {"CurrencyIsoCode": "CHF", "Amount": 95.0}
    load(con, sales(tmp_path, 1, [opportunity(1, Name="theirs", **francs)], full=True, CurrencyType=currencies(EUROS)), now=NOON)
    other = sales(tmp_path, 1, [opportunity(2, Name="ours", **francs)], full=True, source="america", CurrencyType=currencies(DOLLARS))
    load(con, other, now=NOON, business={"currency": "EUR"})
    assert home(con, "sales") == {"theirs": 100}
    assert home(con, "america") == {"ours": Decimal("23.75")}
    load(con, sales(tmp_path, 2, [], CurrencyType=currencies(EUROS)), now=NOON, business={"currency": "EUR"})
    assert home(con, "america") == {"ours": Decimal("23.75")}
    assert rows(con, "select source, count(*) as n from core.exchange_rate group by 1 order by 1") == [
        {"source": "america", "n": 2}, {"source": "sales", "n": 2},
    ]  # fmt: skip
    assert {d["opportunity_key"] for d in deals_of(con).values()} == {f"sales:{opp_id(1)}", f"america:{opp_id(2)}"}
