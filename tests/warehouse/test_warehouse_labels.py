"""Values that a CRM stores by an id of its own, and what people read for them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from warehouse_land import NOON, deal, hs, inbound, one, opportunity, rows, sales

from warehouse.load import load

DAY = timedelta(days=1)
LOST = {"dealstage": "closedlost", "hs_is_closed": "true"}


def enumeration(name: str, *options: tuple[str, str], hidden: tuple[str, ...] = ()) -> dict[str, Any]:
    """A property definition as HubSpot gives it."""
    told = [{"value": value, "label": label, "displayOrder": n, "hidden": value in hidden} for n, (value, label) in enumerate(options)]
    return {"name": name, "label": name.title(), "type": "enumeration", "fieldType": "select", "options": told, "updatedAt": hs(NOON)}


TYPES = enumeration("dealtype", ("newbusiness", "New Business"), ("opt_2", "Renewal"))
REASONS = enumeration("closed_lost_reason", ("1", "Price"), ("2", "No budget"), ("3", "Old word"), hidden=("3",))
TEXT = {"name": "dealname", "label": "Deal Name", "type": "string", "fieldType": "text", "options": []}


def labels(con: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows(con, "select opportunity_id, type, lost_reason from bi.opportunity order by source, 1")]


def test_people_read_labels_where_deals_hold_values(con: Any, tmp_path: Path) -> None:
    deals = [
        deal(1), deal(2, dealtype="opt_2"), deal(3, dealtype=None, closed_lost_reason="2", **LOST),
        deal(4, closed_lost_reason="1;3", **LOST), deal(5, dealtype="gone_from_the_list", closed_lost_reason="Went away;  no word", **LOST),
    ]  # fmt: skip
    load(con, inbound(tmp_path, 1, deals, full=True, properties=[TEXT, TYPES, REASONS]), now=NOON)
    load(con, sales(tmp_path, 1, [opportunity(6)], full=True), now=NOON)
    assert labels(con)[:5] == [
        ("1", "New Business", None), ("2", "Renewal", None), ("3", None, "No budget"), ("4", "New Business", "Price; Old word"),
        ("5", "gone_from_the_list", "Went away;  no word"),
    ]  # fmt: skip
    assert labels(con)[5][1:] == ("New Business", None)  # Salesforce's own word
    assert one(con, "select type, lost_reason from core.opportunity where opportunity_id = '4'") == {"type": "newbusiness", "lost_reason": "1;3"}
    assert rows(con, "select name, value, position, is_hidden from core.field_option where source = 'inbound' order by all")[-1] == {
        "name": "dealtype", "value": "opt_2", "position": 1, "is_hidden": False,
    }  # fmt: skip


def test_a_label_that_the_portal_changes_is_changed_here_and_no_deal_with_it(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1, dealtype="opt_2")], full=True, properties=[TYPES, REASONS]), now=NOON)
    before = one(con, "select row_hash, synced_at from core.opportunity")
    renamed = enumeration("dealtype", ("opt_2", "Extension"), ("opt_9", "New"))
    result = load(con, inbound(tmp_path, 2, [], properties=[renamed, REASONS]), now=NOON + DAY)
    assert labels(con) == [("1", "Extension", None)]
    assert next(c for c in result if c.object == "deals").changed == 0 and one(con, "select row_hash, synced_at from core.opportunity") == before
    told = rows(con, "select name, value, is_hidden from core.field_option order by all")
    assert [tuple(row.values()) for row in told] == [
        ("closed_lost_reason", "1", False), ("closed_lost_reason", "2", False), ("closed_lost_reason", "3", True), ("dealtype", "opt_2", False),
        ("dealtype", "opt_9", False),
    ]  # fmt: skip
    # The key may not see the property any more, or no property at all: deals keep their values, so people keep the words.
    load(con, inbound(tmp_path, 3, [], properties=[REASONS]), now=NOON + 2 * DAY)
    load(con, inbound(tmp_path, 4, [], properties=None), now=NOON + 3 * DAY)
    assert labels(con) == [("1", "Extension", None)]
    assert len(rows(con, "from core.field_option")) == 5


def test_the_reason_of_a_field_of_the_configuration_is_read_by_its_own_labels(con: Any, tmp_path: Path) -> None:
    own = enumeration("why_we_lost", ("1", "They built it themselves"))
    record = deal(1, closed_lost_reason="1", why_we_lost="1", **LOST)
    load(con, inbound(tmp_path, 1, [record], full=True, properties=[own, REASONS]), now=NOON, fields={"lost_reason": "why_we_lost"})
    assert labels(con) == [("1", "newbusiness", "They built it themselves")]
