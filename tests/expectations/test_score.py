"""Scores: points off by group, alert rules only, and sums over deals weighted by amount."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from rule_bench import NOW, ago, day, deal, furnish, insert, run, warehouse


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = warehouse()
    furnish(connection)
    return connection


def scores(con: duckdb.DuckDBPyConnection, scope: str, columns: str = "score") -> dict[str, Any]:
    rows = con.execute(f"select scope_key, {columns} from quality.score where scope = ?", [scope]).fetchall()
    return {str(r[0]).removeprefix("sales:"): r[1] if len(r) == 2 else r[1:] for r in rows}


def test_points_are_taken_once_for_each_group(con: duckdb.DuckDBPyConnection) -> None:
    harm: dict[str, tuple[dict[str, Any], int, str]] = {
        "nothing": ({}, 100, "clean"),
        "one medium": ({"stage": "discovery", "amount": None, "amount_home": None}, 92, "clean"),
        "one high": ({"amount": None, "amount_home": None}, 85, "needs_attention"),
        "two high of two groups": ({"amount": None, "amount_home": None, "next_step": None}, 70, "needs_attention"),
        # no_contact and amount_missing_or_zero are both completeness; exit_qualified is another group
        "two high of one group": ({"amount": None, "amount_home": None, "contact_count": 0}, 70, "needs_attention"),
        "one critical": ({"close_date": day(3)}, 70, "at_risk"),
        "critical twice over": ({"close_date": day(3), "owner_id": "gone", "owner_active": False}, 40, "at_risk"),
        "everything": ({"close_date": day(3), "owner_id": None, "next_step": None, "contact_count": 0, "last_activity_at": ago(90),
                        "created_at": ago(900)}, 0, "at_risk"),
        "prequalified": ({"stage": "prequalified"}, 100, "clean"),
        "unmapped": ({"stage": "unmapped"}, 70, "at_risk"),
    }  # fmt: skip
    for name, (changes, _, _) in harm.items():
        deal(con, name, **changes)
    for name, stage in (("won", "closed_won"), ("lost", "closed_lost"), ("held", "on_hold")):
        deal(con, name, stage=stage)
    run(con)
    assert scores(con, "opportunity", "score::int, status") == {name: (score, status) for name, (_, score, status) in harm.items()}


def test_waived_and_observed_findings_take_nothing_off(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "waived", next_step=None)
    deal(con, "observed", last_activity_at=ago(30))
    insert(con, "quality.waiver", waiver_id="w", scope="deal", scope_key="sales:waived", rule_id="*", reason="agreed",
           valid_from=ago(1), valid_until=ago(-1))  # fmt: skip
    run(con, settings={"no_recent_activity": {"state": "observe"}})
    assert scores(con, "opportunity") == {"waived": 100, "observed": 100}


def test_sums_are_over_deals_weighted_by_amount(con: duckdb.DuckDBPyConnection) -> None:
    for i in range(18):
        deal(con, f"u1 {i}", owner_id="u1", amount=100, amount_home=100)
    deal(con, "u2 large", owner_id="u2", amount=300, amount_home=300, next_step=None)  # 85
    deal(con, "u2 empty", owner_id="u2", amount=None, amount_home=None)   # 85, weighs as the median: 100
    deal(con, "held", stage="on_hold", amount=9_999, amount_home=9_999)
    deal(con, "early", stage="prequalified", amount=9_999, amount_home=9_999)
    run(con)
    weight = 1900 * 0 + 18 * 100 + 120 + 100   # 95th percentile of 18 x 100 and 300: 120
    total = (18 * 100 * 100 + 120 * 85 + 100 * 85) / weight
    assert float(scores(con, "all")["all"]) == pytest.approx(total, abs=0.05)
    assert scores(con, "source") == {"sales": scores(con, "all")["all"]}
    owners = scores(con, "owner", "score, deals, open_amount_home, at_risk_amount_home")
    assert float(owners["u2"][0]) == pytest.approx((2 * 85 + 10 * total) / 12, abs=0.05)   # drawn towards all
    assert owners["u2"][1:] == (2, Decimal(300), Decimal(300))
    assert owners["u1"][1:] == (18, Decimal(1800), Decimal(0))
    assert scores(con, "pipeline", "deals, at_risk_amount_home") == {"default": (20, Decimal(300))}


def test_the_share_that_could_be_judged_is_told(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "seen", stage="qualified")
    deal(con, "unseen", stage="qualified", activity_capability="none", last_activity_at=None)
    run(con)
    shares = scores(con, "opportunity", "evaluable_share")
    assert shares["seen"] == 1
    # applicable: close date 30, activity 15, dwell 15, age 15, owner 30, state 30, next step 15; activity cannot be judged
    assert shares["unseen"] == pytest.approx(Decimal(135) / Decimal(150), abs=Decimal("0.0001"))


def test_scores_of_single_deals_are_kept_for_the_newest_check_only(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "a")
    run(con)
    run(con, now=NOW + timedelta(days=1))
    counts = dict(con.execute("select scope, count(*) from quality.score group by 1").fetchall())
    assert counts == {"opportunity": 1, "owner": 2, "pipeline": 2, "source": 2, "all": 2}


def test_a_gate_closes_on_its_severity_and_worse(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "stepless", next_step=None)
    result = run(con)
    assert dict(result.by_severity) == {"critical": 0, "high": 1, "medium": 0, "low": 0, "info": 0}
    assert [s for s in ("critical", "high", "medium", "low", "info") if result.fails(s)] == ["high", "medium", "low", "info"]


def test_thresholds_from_won_deals_are_frozen_with_their_rung(con: duckdb.DuckDBPyConnection) -> None:
    """The pipeline's own deals, else the source's, else built in; thin rungs are drawn towards the next one."""
    from rule_bench import won_deals

    won_deals(con, 40, days_in={"proposal": 10, "negotiation": 20})
    won_deals(con, 80, days_in={"proposal": 40}, pipeline="Partner")
    deal(con, "x", pipeline="Tiny")
    run(con)
    stats = {
        (pipeline, metric, stage): (float(value), n, rung)
        for pipeline, metric, stage, value, n, rung in con.execute(
            "select pipeline, metric, stage, value, n, rung from quality.reference_stat where source = 'sales'"
        ).fetchall()
    }
    own_default, own_partner, org = 10, 40, 40.0   # p90 over all 120 proposals: 40
    assert stats["default", "dwell_p90", "proposal"] == (round((40 * own_default + 20 * org) / 60, 2), 40, "pipeline")
    assert stats["Partner", "dwell_p90", "proposal"] == (own_partner, 80, "pipeline")
    assert stats["Tiny", "dwell_p90", "proposal"] == (org, 120, "source")
    assert stats["Tiny", "dwell_p90", "negotiation"] == (round((40 * 20 + 20 * 30) / 60, 2), 40, "source")   # 30 is built in
    assert stats["Tiny", "dwell_p90", "discovery"] == (45, 0, "default")
    assert stats["default", "cycle_p95", "*"][1:] == (120, "source")   # 40 are too few for a 95th percentile
    assert stats["Partner", "won_amount_median", "*"] == (10_000, 80, "pipeline")
