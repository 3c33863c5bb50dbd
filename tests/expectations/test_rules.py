"""Every rule on hand-made deals: what fails, what passes, what it does not apply to, what cannot be judged, and the traps in which
a careless rule would accuse an innocent deal."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pytest
from rule_bench import NOW, TODAY, ago, day, deal, furnish, insert, move, verdicts, warehouse, won_deals

FAIL, PASS, NA, UNKNOWN, WAIVED = "fail", "pass", "na", "unknown", "waived"
OPEN_STAGES = ("prequalified", "qualified", "discovery", "proposal", "negotiation", "on_hold", "unmapped")


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = warehouse()
    furnish(connection)
    return connection


def judge(con: duckdb.DuckDBPyConnection, rule_id: str, cases: dict[str, tuple[dict[str, Any], str]], **options: Any) -> None:
    """Inserts a healthy deal with the changes of each case and compares the verdicts."""
    for name, (changes, _) in cases.items():
        deal(con, name, **changes)
    found = verdicts(con, rule_id, **options)
    assert {name: found.get(name, "not judged") for name in cases} == {name: expected for name, (_, expected) in cases.items()}


def in_stages(applies: tuple[str, ...], changes: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """The same harm in every stage: it fails where the rule applies and is nothing elsewhere."""
    stages = (*OPEN_STAGES, "closed_won", "closed_lost")
    return {f"in {stage}": ({"stage": stage, **changes}, FAIL if stage in applies else NA) for stage in stages}


# --- freshness --------------------------------------------------------------------------------------------------------------


def test_no_recent_activity(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "no_recent_activity", {
        **in_stages(("qualified", "discovery", "proposal", "negotiation"), {"last_activity_at": ago(40)}),
        "qualified on the limit": ({"stage": "qualified", "last_activity_at": ago(21)}, PASS),
        "qualified over it": ({"stage": "qualified", "last_activity_at": ago(22)}, FAIL),
        "discovery on the limit": ({"stage": "discovery", "last_activity_at": ago(21)}, PASS),
        "proposal on the limit": ({"stage": "proposal", "last_activity_at": ago(14)}, PASS),
        "proposal over it": ({"stage": "proposal", "last_activity_at": ago(15)}, FAIL),
        "negotiation on the limit": ({"stage": "negotiation", "last_activity_at": ago(10)}, PASS),
        "negotiation over it": ({"stage": "negotiation", "last_activity_at": ago(11)}, FAIL),
        "never touched, old": ({"last_activity_at": None, "created_at": ago(30)}, FAIL),
        "never touched, new": ({"last_activity_at": None, "created_at": ago(3)}, PASS),
        "meeting within two weeks": ({"last_activity_at": ago(40), "next_activity_at": ago(-14)}, PASS),
        "meeting today": ({"last_activity_at": ago(40), "next_activity_at": ago(0)}, PASS),
        "meeting in three weeks": ({"last_activity_at": ago(40), "next_activity_at": ago(-21)}, FAIL),
        "meeting that was booked and has gone by": ({"last_activity_at": ago(40), "next_activity_at": ago(2)}, FAIL),
        "renewal": ({"last_activity_at": ago(40), "type": "Renewal"}, NA),
        "renewal by its pipeline": ({"last_activity_at": ago(40), "pipeline": "Verlängerungen"}, NA),
        "activities cannot be read": ({"last_activity_at": None, "activity_capability": "none"}, UNKNOWN),
        "only tasks can be read": ({"last_activity_at": ago(40), "activity_capability": "tasks_only"}, FAIL),
    })  # fmt: skip


def test_no_recent_activity_with_days_of_ones_own(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "no_recent_activity", {
        "negotiation over its new limit": ({"stage": "negotiation", "last_activity_at": ago(8)}, FAIL),
        "proposal keeps the default": ({"stage": "proposal", "last_activity_at": ago(14)}, PASS),
    }, settings={"no_recent_activity": {"days": {"negotiation": 7}}})  # fmt: skip


def test_stage_dwell_by_built_in_days_while_few_deals_are_won(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 29, days_in={"qualified": 5, "proposal": 5})
    judge(con, "stage_dwell_over_p90", {
        **in_stages(("qualified", "discovery", "proposal", "negotiation"), {"stage_entered_at": ago(60), "created_at": ago(70)}),
        "proposal on the limit": ({"stage_entered_at": ago(30)}, PASS),
        "proposal over it": ({"stage_entered_at": ago(31), "created_at": ago(80)}, FAIL),
        "discovery on the limit": ({"stage": "discovery", "stage_entered_at": ago(45), "created_at": ago(80)}, PASS),
        "discovery over it": ({"stage": "discovery", "stage_entered_at": ago(46), "created_at": ago(80)}, FAIL),
        "never moved": ({"stage_entered_at": None, "created_at": ago(31)}, FAIL),
        "renewal": ({"stage_entered_at": ago(60), "type": "renewal 2026"}, NA),
        "no date at all": ({"stage_entered_at": None, "created_at": None}, UNKNOWN),
    })  # fmt: skip
    assert verdicts(con, "stage_dwell_over_p90", {"stage_dwell_over_p90": {"days": {"proposal": 70}}})["never moved"] == PASS


def test_stage_dwell_by_the_orgs_own_won_deals(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 120, days_in={"qualified": 5, "proposal": 10})
    judge(con, "stage_dwell_over_p90", {
        "on the limit": ({"stage_entered_at": ago(10)}, PASS),
        "over it": ({"stage_entered_at": ago(11)}, FAIL),
        "no won deal was ever in negotiation: built-in days": ({"stage": "negotiation", "stage_entered_at": ago(29)}, PASS),
    })  # fmt: skip


def test_moves_within_a_canonical_stage_and_time_on_hold_do_not_restart_the_clock(con: duckdb.DuckDBPyConnection) -> None:
    within = deal(con, "within", stage="discovery", crm_stage="Value Proposition", stage_entered_at=ago(5), created_at=ago(60))
    move(con, within, 60, "discovery", None)
    move(con, within, 5, "discovery", "discovery", crm_stage="Value Proposition")
    held = deal(con, "held", stage="proposal", stage_entered_at=ago(4), created_at=ago(100))
    for days_ago, stage, before in ((100, "proposal", None), (90, "on_hold", "proposal"), (4, "proposal", "on_hold")):
        move(con, held, days_ago, stage, before)
    back = deal(con, "back", stage="proposal", stage_entered_at=ago(4), created_at=ago(100))
    for days_ago, stage, before in ((100, "proposal", None), (40, "discovery", "proposal"), (4, "proposal", "discovery")):
        move(con, back, days_ago, stage, before)
    assert verdicts(con, "stage_dwell_over_p90") == {"within": FAIL, "held": PASS, "back": PASS}


# --- next step --------------------------------------------------------------------------------------------------------------


def test_next_step_empty(con: duckdb.DuckDBPyConnection) -> None:
    furnish(con, "hidden")
    con.execute("delete from core.field where source = 'hidden' and name = 'NextStep'")
    judge(con, "next_step_empty", {
        **in_stages(("qualified", "discovery", "proposal", "negotiation"), {"next_step": None}),
        "blank": ({"next_step": "  "}, FAIL),
        "written": ({}, PASS),
        "meeting booked today": ({"next_step": None, "next_activity_at": ago(0)}, PASS),
        "task booked for next month": ({"next_step": None, "next_activity_at": ago(-30)}, PASS),
        "only a meeting gone by": ({"next_step": None, "next_activity_at": ago(1)}, FAIL),
        "created two days ago": ({"next_step": None, "created_at": ago(2), "stage_entered_at": ago(2)}, NA),
        "created three days ago": ({"next_step": None, "created_at": ago(3), "stage_entered_at": ago(3)}, FAIL),
        "moved yesterday": ({"next_step": None, "stage_entered_at": ago(1)}, NA),
        "renewals need one too": ({"next_step": None, "type": "Renewal"}, FAIL),
        "field hidden from us": ({"next_step": None, "source": "hidden"}, UNKNOWN),
    })  # fmt: skip
    strict = verdicts(con, "next_step_empty", {"next_step_empty": {"strict": True}})
    assert strict["meeting booked today"] == FAIL
    assert strict["written"] == PASS


# --- close date -------------------------------------------------------------------------------------------------------------


def test_close_date_past(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "close_date_past", {
        **in_stages(("prequalified", "qualified", "discovery", "proposal", "negotiation", "unmapped"), {"close_date": day(10)}),
        "today": ({"close_date": TODAY}, PASS),
        "yesterday": ({"close_date": day(1)}, FAIL),
        "tomorrow": ({"close_date": day(-1)}, PASS),
        "none": ({"close_date": None}, UNKNOWN),
        "negotiation, yesterday": ({"stage": "negotiation", "close_date": day(1)}, PASS),   # Monday; today is Tuesday
        "negotiation, last Friday": ({"stage": "negotiation", "close_date": day(4)}, FAIL),
        "prequalified, yesterday": ({"stage": "prequalified", "close_date": day(1)}, FAIL),
    })  # fmt: skip


def test_the_grace_of_a_negotiation_spans_the_weekend(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "friday", stage="negotiation", close_date=date(2026, 11, 20))
    by_day = {
        today: verdicts(con, "close_date_past", business_date=date(2026, 11, today))["friday"] for today in (20, 21, 22, 23, 24)
    }
    assert by_day == {20: PASS, 21: PASS, 22: PASS, 23: PASS, 24: FAIL}


def test_close_date_past_goes_by_the_business_day_not_by_utc(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "closes today", close_date=date(2026, 11, 23))
    late = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)  # 23:00 on the 23rd in Los Angeles
    found = verdicts(con, "close_date_past", now=late, business_date=date(2026, 11, 23), timezone="America/Los_Angeles")
    assert found == {"closes today": PASS}


def test_days_are_counted_in_the_business_time_zone(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "evening", last_activity_at=datetime(2026, 11, 9, 23, 30, tzinfo=UTC))  # already the 10th in Berlin: 14 days ago
    assert verdicts(con, "no_recent_activity") == {"evening": PASS}
    assert verdicts(con, "no_recent_activity", timezone="UTC") == {"evening": FAIL}


# --- stage exit criteria ------------------------------------------------------------------------------------------------------


def test_exit_qualified(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 4, days_in={"proposal": 10})
    con.execute("update core.opportunity set description = repeat('x', 40) where opportunity_id in ('wondefault0', 'wondefault1')")
    described = {"description": "They lose a day a week to manual quoting."}
    judge(con, "exit_qualified", {
        **in_stages(("discovery", "proposal", "negotiation"), {**described, "contact_count": 0}),
        "complete": (described, PASS),
        "half of the won deals have a description, this one none": ({}, FAIL),
        "a short one": ({"description": "tbd"}, FAIL),
        "no account": ({**described, "account_id": None}, FAIL),
        "account without industry and size": ({**described, "account_id": "bare"}, FAIL),
        "account not read": ({**described, "account_id": "elsewhere"}, UNKNOWN),
        "contacts not read": ({**described, "contact_count": None}, UNKNOWN),
        "contacts not read, no account": ({**described, "contact_count": None, "account_id": None}, FAIL),
    })  # fmt: skip


def test_exit_qualified_does_not_ask_for_what_nobody_fills_in(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 20, days_in={"proposal": 10})
    con.execute("update core.opportunity set account_id = 'bare' where is_won")
    judge(con, "exit_qualified", {
        "no description, bare account": ({"account_id": "bare"}, PASS),
        "no contact": ({"account_id": "bare", "contact_count": 0}, FAIL),
        "no account": ({"account_id": None}, FAIL),
    })  # fmt: skip


def test_exit_qualified_with_mapped_evidence(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "exit_qualified", {
        "both": ({"evidence": '{"need": "Slow quoting", "fit": "Tier 1"}', "account_id": "bare"}, PASS),
        "need empty": ({"evidence": '{"need": null, "fit": "Tier 1"}'}, FAIL),
        "need says no": ({"evidence": '{"need": "false", "fit": "Tier 1"}'}, FAIL),
        "fit empty": ({"evidence": '{"need": "x", "fit": ""}'}, FAIL),
    })  # fmt: skip


def test_exit_closed_lost(con: duckdb.DuckDBPyConnection) -> None:
    furnish(con, "unmapped")
    lost: dict[str, Any] = {"stage": "closed_lost"}
    judge(con, "exit_closed_lost", {
        "with a reason": (lost, PASS),
        "without": ({**lost, "lost_reason": None}, FAIL),
        "blank": ({**lost, "lost_reason": " "}, FAIL),
        "a bare other": ({**lost, "lost_reason": " Other."}, FAIL),
        "other, and which": ({**lost, "lost_reason": "Other: merged with a rival"}, PASS),
        "close date to come": ({**lost, "close_date": day(-3)}, FAIL),
        "90 days ago": ({**lost, "lost_reason": None, "closed_at": ago(90), "close_date": day(90), "created_at": ago(200)}, FAIL),
        "by its history 91 days ago": ({**lost, "lost_reason": None, "closed_at": ago(91), "close_date": day(1)}, "not judged"),
        "years ago": ({**lost, "lost_reason": None, "closed_at": ago(900), "close_date": day(900)}, "not judged"),
        "no history, close date stands in": ({**lost, "lost_reason": None, "closed_at": None}, FAIL),
        "won": ({"stage": "closed_won", "lost_reason": None}, NA),
        "open": ({"lost_reason": None}, NA),
        "deleted": ({**lost, "lost_reason": None, "is_deleted": True}, "not judged"),
        "no field is mapped": ({**lost, "lost_reason": None, "source": "unmapped"}, UNKNOWN),
        "no field is mapped, HubSpot has its own": ({**lost, "lost_reason": None, "source": "unmapped", "crm": "hubspot"}, FAIL),
    })  # fmt: skip


# --- hoarding ---------------------------------------------------------------------------------------------------------------


def test_deal_over_aged_without_history(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 13, days_in={"proposal": 10})
    judge(con, "deal_over_aged", {
        **in_stages(("prequalified", "qualified", "discovery", "proposal", "negotiation"), {"created_at": ago(400)}),
        "a year": ({"created_at": ago(365)}, PASS),
        "a year and a day": ({"created_at": ago(366)}, FAIL),
        "renewal": ({"created_at": ago(400), "type": "Renewal"}, NA),
        "no date": ({"created_at": None}, UNKNOWN),
    })  # fmt: skip


def test_deal_over_aged_by_three_medians_then_by_p95(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 15, days_in={"proposal": 20})
    for name, age in (("59 days", 59), ("60 days", 60), ("61 days", 61), ("21 days", 21), ("20 days", 20)):
        deal(con, name, created_at=ago(age))
    found = verdicts(con, "deal_over_aged")
    assert (found["60 days"], found["61 days"]) == (PASS, FAIL)
    won_deals(con, 105, days_in={"proposal": 20}, first=15)
    found = verdicts(con, "deal_over_aged")
    assert (found["20 days"], found["21 days"]) == (PASS, FAIL)


# --- completeness -----------------------------------------------------------------------------------------------------------


def test_amount_missing_or_zero(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "amount_missing_or_zero", {
        **in_stages(("discovery", "proposal", "negotiation"), {"amount": None, "amount_home": None}),
        "zero": ({"amount": 0, "amount_home": 0}, FAIL),
        "a cent": ({"amount": "0.01"}, PASS),
        "no exchange rate is another matter": ({"amount_home": None}, PASS),
        "pilot": ({"amount": None, "type": "Pilot"}, NA),
        "no type": ({"amount": None, "type": None}, FAIL),
    }, settings={"amount_missing_or_zero": {"exempt_types": ["pilot"]}})  # fmt: skip


def test_no_contact(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "no_contact", {
        **in_stages(("discovery", "proposal", "negotiation"), {"contact_count": 0}),
        "one": ({"contact_count": 1}, PASS),
        "contacts not read": ({"contact_count": None}, UNKNOWN),
        "contacts not read, too early to ask": ({"contact_count": None, "stage": "qualified"}, NA),
    })  # fmt: skip


def test_single_threaded(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 20, days_in={"proposal": 10}, amount=10_000)
    judge(con, "single_threaded", {
        **in_stages(("proposal", "negotiation"), {"contact_count": 1}),
        "below the median won deal": ({"contact_count": 1, "amount": 9_999, "amount_home": 9_999}, PASS),
        "two contacts": ({"contact_count": 2}, PASS),
        "none is another rule": ({"contact_count": 0}, PASS),
        "contacts not read": ({"contact_count": None}, UNKNOWN),
        "no amount": ({"contact_count": 1, "amount": None, "amount_home": None}, UNKNOWN),
        "no amount, two contacts": ({"contact_count": 2, "amount": None, "amount_home": None}, PASS),
    })  # fmt: skip


def test_single_threaded_claims_nothing_from_too_few_won_deals(con: duckdb.DuckDBPyConnection) -> None:
    won_deals(con, 14, days_in={"proposal": 10})
    judge(con, "single_threaded", {"one contact": ({"contact_count": 1}, UNKNOWN), "two": ({"contact_count": 2}, PASS)})


# --- integrity --------------------------------------------------------------------------------------------------------------


def test_owner_not_working(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "owner_not_working", {
        **in_stages(OPEN_STAGES, {"owner_id": "gone", "owner_active": False}),
        "working": ({}, PASS),
        "none": ({"owner_id": None, "owner_active": None}, FAIL),
        "queue": ({"owner_id": "queue", "owner_active": False}, FAIL),
        "integration user": ({"owner_id": "bot", "owner_active": True}, FAIL),
        "not among the users we can read": ({"owner_id": "stranger", "owner_active": None}, UNKNOWN),
    })  # fmt: skip


def test_state_inconsistent(con: duckdb.DuckDBPyConnection) -> None:
    insert(con, "core.stage_map", source="sales", pipeline="default", crm_stage="Old Stage", is_closed=False, is_won=False,
           is_active=False, stage="proposal", stage_rank=3, origin="default", updated_at=NOW)  # fmt: skip
    judge(con, "state_inconsistent", {
        **{f"healthy {stage}": ({"stage": stage}, PASS) for stage in OPEN_STAGES if stage != "unmapped"},
        "healthy won": ({"stage": "closed_won"}, PASS),
        "healthy lost": ({"stage": "closed_lost"}, PASS),
        "unmapped stage": ({"stage": "unmapped"}, FAIL),
        "closed by its flag, open by its stage": ({"is_closed": True, "closed_at": ago(3), "close_date": day(3)}, FAIL),
        "won by its flag, lost by its stage": ({"stage": "closed_lost", "is_won": True}, FAIL),
        "open by its flag, closed by the definition of its stage": ({"crm_stage": "Closed Won"}, FAIL),
        "stage of another pipeline": ({"crm_stage": "Contract Review"}, FAIL),
        "retired stage": ({"crm_stage": "Old Stage"}, FAIL),
        "won with a close date to come": ({"stage": "closed_won", "close_date": day(-2)}, FAIL),
        "won today": ({"stage": "closed_won", "close_date": TODAY, "closed_at": ago(0)}, PASS),
        "created after it closed": ({"stage": "closed_lost", "created_at": ago(2), "close_date": day(5)}, FAIL),
        "won without an amount": ({"stage": "closed_won", "amount": None}, FAIL),
        "won for less than nothing": ({"stage": "closed_won", "amount": -5}, FAIL),
        "lost without an amount": ({"stage": "closed_lost", "amount": None}, PASS),
        "open at 100 %": ({"stage_default_probability": 1}, FAIL),
        "open at 0 %": ({"stage_default_probability": 0}, FAIL),
        "won at 60 %": ({"stage": "closed_won", "stage_default_probability": 0.6}, FAIL),
        "created next week": ({"created_at": ago(-7)}, FAIL),
        "created while the run was under way": ({"created_at": ago(-0.5), "stage_entered_at": None}, PASS),
        "won long ago, without an amount": ({"stage": "closed_won", "amount": None, "closed_at": ago(300), "close_date": day(300)},
                                            "not judged"),
    })  # fmt: skip


def test_state_inconsistent_cannot_judge_stages_it_was_never_told(con: duckdb.DuckDBPyConnection) -> None:
    judge(con, "state_inconsistent", {
        "healthy": ({"source": "silent"}, UNKNOWN),
        "won without an amount": ({"source": "silent", "stage": "closed_won", "amount": 0}, FAIL),
    })  # fmt: skip


# --- waivers and snoozes ------------------------------------------------------------------------------------------------------


def waive(con: duckdb.DuckDBPyConnection, scope: str, key: str, rule_id: str, **over: Any) -> None:
    insert(con, "quality.waiver", **{
        "waiver_id": f"w{key}{rule_id}", "scope": scope, "scope_key": key, "rule_id": rule_id, "reason": "agreed", "author": "Uma",
        "valid_from": ago(1), "valid_until": ago(-30), "ended_at": None,
    } | over)  # fmt: skip


def test_waivers_by_deal_account_owner_and_pipeline(con: duckdb.DuckDBPyConnection) -> None:
    bad = {"contact_count": 0}
    waive(con, "deal", "sales:this deal", "no_contact")
    waive(con, "deal", "sales:all rules", "*")
    waive(con, "deal", "sales:another rule", "single_threaded")
    waive(con, "account", "sales:waived account", "no_contact")
    waive(con, "owner", "sales:waived owner", "no_contact")
    waive(con, "pipeline", "sales:Partner", "no_contact")
    waive(con, "deal", "sales:run out", "no_contact", valid_until=ago(0.5))
    waive(con, "deal", "sales:to come", "no_contact", valid_from=ago(-1))
    waive(con, "deal", "sales:ended", "no_contact", ended_at=ago(0.5))
    judge(con, "no_contact", {
        "this deal": (bad, WAIVED), "all rules": (bad, WAIVED), "another rule": (bad, FAIL),
        "by account": ({**bad, "account_id": "waived account"}, WAIVED), "by owner": ({**bad, "owner_id": "waived owner"}, WAIVED),
        "by pipeline": ({**bad, "pipeline": "Partner"}, WAIVED),
        "run out": (bad, FAIL), "to come": (bad, FAIL), "ended": (bad, FAIL), "none": (bad, FAIL),
    })  # fmt: skip


def test_snoozes_last_thirty_days_at_most(con: duckdb.DuckDBPyConnection) -> None:
    for name, until in (("today", TODAY), ("30 days", day(-30)), ("31 days", day(-31)), ("run out", day(1))):
        insert(con, "core.crm_flag", opportunity_key=f"sales:{name}", snooze_until=until)
    bad = {"contact_count": 0, "close_date": day(3)}
    judge(con, "no_contact", {
        "today": (bad, WAIVED), "30 days": (bad, WAIVED), "31 days": (bad, FAIL), "run out": (bad, FAIL),
    })  # fmt: skip


def test_critical_rules_cannot_be_snoozed_and_a_past_close_date_cannot_be_waived(con: duckdb.DuckDBPyConnection) -> None:
    for name in ("snoozed", "waived"):
        deal(con, name, close_date=day(3), owner_id="gone", owner_active=False)
    insert(con, "core.crm_flag", opportunity_key="sales:snoozed", snooze_until=day(-5))
    waive(con, "deal", "sales:waived", "*")
    assert verdicts(con, "owner_not_working") == {"snoozed": FAIL, "waived": WAIVED}
    assert verdicts(con, "close_date_past") == {"snoozed": FAIL, "waived": FAIL}
