"""A bench for rules: an empty warehouse in memory and one healthy deal, to which each test does its harm."""

from __future__ import annotations

import functools
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from expectations import check as check_module
from expectations.check import CheckResult, check
from expectations.loader import load
from expectations.rule import Catalogue
from expectations.verdict import verdict

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 24)  # a Tuesday
NOW = datetime(2026, 11, 24, 5, 0, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def warehouse() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'; set threads = 1")  # a handful of deals: threads would only wait for each other
    for schema in ("core", "quality", "ops"):
        con.execute(f"create schema {schema}")
        for path in sorted((ROOT / "warehouse" / "tables" / schema).glob("*.sql")):
            con.execute(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "warehouse" / "views" / "core").glob("*.sql")):
        con.execute(path.read_text(encoding="utf-8"))
    return con


def insert(con: duckdb.DuckDBPyConnection, table: str, **values: Any) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    con.execute(f"insert into {table} ({names}) values ({', '.join('?' * len(values))})", list(values.values()))


def ago(days: float) -> datetime:
    """Noon in Berlin so many days before today."""
    return datetime(2026, 11, 24, 11, 0, tzinfo=UTC) - timedelta(days=days)


def day(days: int) -> date:
    """So many days before today; negative: to come."""
    return TODAY - timedelta(days=days)


def furnish(con: duckdb.DuckDBPyConnection, source: str = "sales") -> None:
    """The people, the account and the stages that the healthy deal needs."""
    insert(con, "core.account", account_key=f"{source}:a1", source=source, account_id="a1", name="Acme", industry="Machinery",
           employees=200, is_deleted=False)  # fmt: skip
    insert(con, "core.account", account_key=f"{source}:bare", source=source, account_id="bare", name="Bare", is_deleted=False)
    for owner_id, active, seller in (("u1", True, True), ("gone", False, True), ("queue", False, False), ("bot", True, False)):
        insert(con, "core.owner", owner_key=f"{source}:{owner_id}", source=source, owner_id=owner_id, name=owner_id.title(),
               is_active=active, is_seller=seller)  # fmt: skip
    for position, (name, stage, rank, closed, won, probability) in enumerate([
        ("Prospecting", "prequalified", 0, False, False, 0.1), ("Qualification", "qualified", 1, False, False, 0.1),
        ("Needs Analysis", "discovery", 2, False, False, 0.2), ("Value Proposition", "discovery", 2, False, False, 0.5),
        ("Proposal/Price Quote", "proposal", 3, False, False, 0.75), ("Negotiation/Review", "negotiation", 4, False, False, 0.9),
        ("Parked", "on_hold", None, False, False, 0.1), ("Orbit Check", "unmapped", None, False, False, 0.4),
        ("Closed Won", "closed_won", 5, True, True, 1), ("Closed Lost", "closed_lost", 5, True, False, 0),
    ]):  # fmt: skip
        insert(con, "core.stage_map", source=source, pipeline="default", crm_stage=name, label=name, position=position,
               probability=probability, is_closed=closed, is_won=won, is_active=True, stage=stage, stage_rank=rank,
               origin="default", confidence=1, updated_at=NOW)  # fmt: skip
    for name in ("NextStep", "Description", "Amount"):
        insert(con, "core.field", source=source, object="Opportunity", name=name, first_seen_at=NOW, last_seen_at=NOW)


CRM_STAGE = {
    "prequalified": ("Prospecting", 0), "qualified": ("Qualification", 1), "discovery": ("Needs Analysis", 2),
    "proposal": ("Proposal/Price Quote", 3), "negotiation": ("Negotiation/Review", 4), "on_hold": ("Parked", None),
    "unmapped": ("Orbit Check", None), "closed_won": ("Closed Won", 5), "closed_lost": ("Closed Lost", 5),
}  # fmt: skip


def deal(con: duckdb.DuckDBPyConnection, opportunity_id: str, *, stage: str = "proposal", source: str = "sales", **over: Any) -> str:
    """Inserts a deal that no rule fails in any open stage, changed by `over`; returns its key."""
    crm_stage, rank = CRM_STAGE[stage]
    closed = stage in ("closed_won", "closed_lost")
    values: dict[str, Any] = {
        "opportunity_key": f"{source}:{opportunity_id}", "source": source, "crm": "salesforce", "opportunity_id": opportunity_id,
        "name": f"Deal {opportunity_id}", "account_id": "a1", "account_name": "Acme", "owner_id": "u1", "owner_name": "Uma One",
        "owner_active": True, "pipeline": "default", "type": "New Business", "crm_stage": crm_stage, "crm_stage_label": crm_stage,
        "stage": stage, "stage_rank": rank, "is_closed": closed, "is_won": stage == "closed_won", "is_deleted": False,
        "amount": 10_000, "currency": "EUR", "amount_home": 10_000, "probability": 0.5, "stage_default_probability":
        {"closed_won": 1, "closed_lost": 0}.get(stage, 0.5), "created_at": ago(20), "close_date": day(5) if closed else day(-30),
        "closed_at": ago(5) if closed else None, "stage_entered_at": ago(10), "next_step": "Send the quote to Karin by Friday",
        "last_activity_at": ago(2), "activity_capability": "full", "contact_count": 3, "close_date_pushes": 0,
        "lost_reason": "Price too high" if stage == "closed_lost" else None, "synced_at": NOW, "row_hash": "x",
    } | over  # fmt: skip
    insert(con, "core.opportunity", **values)
    return str(values["opportunity_key"])


def won_deals(con: duckdb.DuckDBPyConnection, n: int, *, days_in: dict[str, int], amount: int = 10_000, pipeline: str = "default",
              first: int = 0) -> None:  # fmt: skip
    """`n` deals won ten days ago, each having been `days_in` its stages one after the other (and created on the first day)."""
    for i in range(first, first + n):
        cycle = sum(days_in.values())
        key = deal(con, f"won{pipeline}{i}", stage="closed_won", created_at=ago(10 + cycle), closed_at=ago(10), close_date=day(10),
                   amount=amount, amount_home=amount, pipeline=pipeline)  # fmt: skip
        left, before = 10 + cycle, None
        for stage, days in days_in.items():
            move(con, key, left, stage, before)
            before, left = stage, left - days
        move(con, key, 10, "closed_won", before)


def move(con: duckdb.DuckDBPyConnection, key: str, days_ago: float, stage: str, before: str | None, crm_stage: str | None = None) -> None:
    insert(con, "core.stage_event", opportunity_key=key, at=ago(days_ago), from_stage=before, to_stage=stage,
           from_crm_stage=before and CRM_STAGE[before][0], to_crm_stage=crm_stage or CRM_STAGE[stage][0],
           kind="advance" if before else "enter")  # fmt: skip


def run(con: duckdb.DuckDBPyConnection, *, now: datetime = NOW, run_id: str | None = None, **options: Any) -> CheckResult:
    business_date = options.pop("business_date", None) or (now + timedelta(hours=1)).date()
    return check(con, run_id=run_id or f"run-{now:%m%d%H%M}", now=now, business_date=business_date, timezone=BERLIN, **options)


def findings(con: duckdb.DuckDBPyConnection, rule_id: str | None = None) -> list[tuple[Any, ...]]:
    """(opportunity_id, rule_id, state, severity) of every episode."""
    return con.execute(
        "select split_part(opportunity_key, ':', 2), rule_id, state, severity from quality.finding"
        " where ? is null or rule_id = ? order by all", [rule_id, rule_id],
    ).fetchall()  # fmt: skip


@functools.cache
def _catalogue(settings: str) -> Catalogue:
    return load(json.loads(settings))


def verdicts(con: duckdb.DuckDBPyConnection, rule_id: str, settings: dict[str, Any] | None = None, *, now: datetime = NOW,
             business_date: date = TODAY, timezone: str = BERLIN) -> dict[str, str]:  # fmt: skip
    """opportunity_id → verdict of one rule, by the same subject and the same SQL as a check, without Great Expectations."""
    catalogue = _catalogue(json.dumps(settings))
    parameters = {"now": now, "business_date": business_date, "timezone": timezone, "renewal": check_module.RENEWAL}
    with check_module._workspace(con):
        check_module._gather(con, catalogue, parameters)
        sql = verdict(catalogue.rule(rule_id).kwargs)
        return dict(con.execute(f"select opportunity_id, {sql} from plumbline_check.subject").fetchall())
