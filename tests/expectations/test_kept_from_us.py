"""What a CRM keeps from us is unknown: it neither fails a deal nor passes it, and whatever else a rule knows still counts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import duckdb
import pytest
import rule_bench as bench
from rule_bench import NOW, ago, day, deal

from expectations import check as check_module
from expectations.guard import MADE_OF, guarded

FIELDS = ("Name", "Amount", "CloseDate", "NextStep", "Description", "AccountId", "OwnerId", "Type", "Probability", "ForecastCategoryName",
          "CreatedDate", "LastStageChangeDate", "LastActivityDate", "StageName", "IsClosed", "IsWon", "Loss_Reason__c")  # fmt: skip
OBJECTS = ("Opportunity", "OpportunityHistory", "OpportunityContactRole", "Task", "Event", "Account", "User", "OpportunityStage")


def org(con: duckdb.DuckDBPyConnection, *, hidden: tuple[str, ...] = (), refused: tuple[str, ...] = (), **mapped: str) -> None:
    """What a sync leaves behind of an org that hides fields and refuses objects."""
    con.execute("delete from core.field; delete from core.source")
    for name in FIELDS:
        if name not in hidden:
            bench.insert(con, "core.field", source="sales", object="Opportunity", name=name, type="string", first_seen_at=NOW, last_seen_at=NOW)
    told = {"readable": [o for o in OBJECTS if o not in refused], "fields": mapped}
    bench.insert(con, "core.source", source="sales", crm="salesforce", derivation=json.dumps(told),
                 first_synced_at=ago(30), last_synced_at=NOW)  # fmt: skip


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    con = bench.warehouse()
    bench.furnish(con)
    org(con)
    return con


def test_an_org_that_shows_everything_is_judged_as_ever(con):
    deal(con, "bare", amount=None, amount_home=None)
    assert bench.verdicts(con, "amount_missing_or_zero") == {"bare": "fail"}
    assert con.execute("from core.unreadable").fetchall() == []


@pytest.mark.parametrize(
    ("field", "rule_id", "harm"),
    [
        ("Amount", "amount_missing_or_zero", {"amount": None, "amount_home": None}),
        ("NextStep", "next_step_empty", {"next_step": None}),
        ("OwnerId", "owner_not_working", {"owner_id": None, "owner_name": None, "owner_active": None}),
        ("AccountId", "exit_qualified", {"account_id": None, "account_name": None}),
        ("CreatedDate", "deal_over_aged", {"created_at": ago(900)}),
    ],
)
def test_a_hidden_field_fails_no_deal(con, field, rule_id, harm):
    deal(con, "seen")
    deal(con, "bare", **harm)
    assert bench.verdicts(con, rule_id)["bare"] == "fail"
    org(con, hidden=(field,))
    assert bench.verdicts(con, rule_id)["bare"] == "unknown"


def test_the_last_value_that_was_seen_passes_no_deal_either(con):
    deal(con, "old", amount=10_000)
    org(con, hidden=("Amount",))
    assert bench.verdicts(con, "amount_missing_or_zero") == {"old": "unknown"}


def test_what_does_not_hang_on_the_field_is_decided_all_the_same(con):
    deal(con, "open")
    deal(con, "retired", crm_stage="Gone for good")
    deal(con, "won", stage="closed_won")
    org(con, hidden=("Amount",))
    # An open deal is not won without an amount, whatever its amount is; a stage that its pipeline lacks is wrong in any case.
    assert bench.verdicts(con, "state_inconsistent") == {"open": "pass", "retired": "fail", "won": "unknown"}
    org(con, refused=("Task", "Event"))
    con.execute("update core.opportunity set next_step = null where opportunity_id = 'retired'")
    assert bench.verdicts(con, "next_step_empty") == {"open": "pass", "retired": "unknown", "won": "na"}
    assert bench.verdicts(con, "next_step_empty", {"next_step_empty": {"strict": True}})["retired"] == "fail"


def test_a_mapped_field_that_is_not_there_is_no_missing_reason(con):
    deal(con, "lost", stage="closed_lost", lost_reason=None, evidence=json.dumps({"lost_reason": None}))
    org(con, lost_reason="Loss_Reason__c")
    assert bench.verdicts(con, "exit_closed_lost") == {"lost": "fail"}
    org(con, hidden=("Loss_Reason__c",), lost_reason="Loss_Reason__c")
    assert bench.verdicts(con, "exit_closed_lost") == {"lost": "unknown"}
    con.execute("update core.opportunity set close_date = ?", [day(-3)])
    assert bench.verdicts(con, "exit_closed_lost") == {"lost": "fail"}  # for another reason


def test_activities_count_as_unknown_only_where_nothing_tells_of_them(con):
    deal(con, "quiet", last_activity_at=ago(90))
    for refused, hidden, expected in (
        (("Event",), (), "fail"), (("Task",), (), "fail"), (("Task", "Event"), ("LastActivityDate",), "unknown"),
    ):  # fmt: skip
        org(con, refused=refused, hidden=hidden)
        assert bench.verdicts(con, "no_recent_activity") == {"quiet": expected}, (refused, hidden)


def test_the_check_says_why_and_what_rules_need_to_read(con):
    deal(con, "one", amount=None, amount_home=None)
    org(con, hidden=("Amount", "NextStep"))
    bench.insert(con, "core.field_lost", source="sales", object="Opportunity", name="Amount", label="Betrag", type="currency", lost_at=ago(4))
    bench.run(con)
    told = dict(con.execute("select rule_id, unknown_reason from quality.result where evaluable < applicable").fetchall())
    assert told["amount_missing_or_zero"] == "1 deal: amount cannot be read in this source"
    assert told["next_step_empty"] == "1 deal: next step cannot be read in this source"
    reads = dict(con.execute("select rule_id, reads from quality.rule").fetchall())
    assert reads["amount_missing_or_zero"] == ["amount"]
    assert reads["next_step_empty"] == ["next_activity_at", "next_step"]
    missing = con.execute("select column_name, object, field, label, since from core.unreadable order by 1").fetchall()
    assert missing == [
        ("amount", "Opportunity", "Amount", "Betrag", ago(4)), ("next_step", "Opportunity", "NextStep", None, ago(30)),
    ]  # fmt: skip


def test_an_object_is_missed_since_the_first_refusal_in_a_row(con):
    for i, (days, notice) in enumerate([(9, "not read: no"), (8, None), (7, "not read: no"), (6, "not read: no")]):
        bench.insert(con, "ops.sync_run", run_id=f"r{i}", command="sync", source="sales", as_of=ago(days), started_at=ago(days), status="done")
        counts = dict.fromkeys(("inserted", "changed", "unchanged", "echoed", "deleted", "bytes", "calls"), 0)
        bench.insert(con, "ops.sync_object", run_id=f"r{i}", source="sales", object="OpportunityContactRole", mode="full",
                     fetched=0 if notice else 5, notice=notice, **counts)  # fmt: skip
    org(con, refused=("OpportunityContactRole",))
    assert con.execute("select column_name, object, field, since from core.unreadable").fetchall() == [
        ("contact_count", "OpportunityContactRole", None, ago(7))
    ]


# The map from the subject's columns to those of the warehouse, held against what the check makes of them.

HARMS = {
    "amount": "update core.opportunity set amount = null, amount_home = null",
    "owner_id": "update core.opportunity set owner_id = null, owner_name = null, owner_active = null",
    "account_name": "delete from core.account; update core.opportunity set account_name = null",
    "owner_active": "delete from core.owner; update core.opportunity set owner_active = null",
    "created_at": "update core.opportunity set created_at = null where not is_closed",  # won deals without it are no measure of anything
    "next_step": "delete from core.field where name = 'NextStep'; update core.opportunity set next_step = null",
    "last_activity_at": "update core.opportunity set last_activity_at = null, activity_capability = 'none'",
    "evidence.need": "update core.opportunity set evidence = json_merge_patch(evidence, '{\"need\": null}')",
    "evidence.fit": "update core.opportunity set evidence = json_merge_patch(evidence, '{\"fit\": null}')",
}
# What moves too and is not of the map: it only tells who is asked at all, or has another column to fall back on.
ALSO = {"type": {"is_renewal"}, "created_at": {"days_quiet"}, "close_date": {"closed_day"}}


def subject(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Every column of the subject as the list of its values."""
    parameters = {"now": NOW, "business_date": bench.TODAY, "timezone": bench.BERLIN, "renewal": check_module.RENEWAL}
    with check_module._workspace(con):
        check_module._gather(con, bench._catalogue("null"), parameters)
        found = con.execute("select * from plumbline_check.subject order by opportunity_key")
        names = [column[0] for column in found.description]
        return dict(zip(names, map(list, zip(*found.fetchall(), strict=True)), strict=True))


def test_the_subject_is_made_of_what_the_map_says(con):
    evidence = json.dumps({"need": "yes", "fit": "yes", "lost_reason": "Price"})
    text = "They need it by May, in three plants."
    deal(con, "won", stage="closed_won", closed_at=ago(5), evidence=evidence, description=text)
    con.execute("""
        insert into core.opportunity
        select o.* replace ('sales:won' || i as opportunity_key, 'won' || i as opportunity_id) from core.opportunity o, range(29) t(i)
    """)
    deal(con, "open", type="Renewal", evidence=evidence, description=text, forecast_category="commit",
         next_activity_at=NOW + timedelta(days=2), lost_reason="Price", probability=0.4)  # fmt: skip
    tables = ("core.opportunity", "core.account", "core.owner", "core.field")
    for table in tables:
        con.execute(f"create temp table {table.replace('.', '_')} as from {table}")
    before = subject(con)
    for column in sorted({column for several in MADE_OF.values() for column in several}):
        con.execute(HARMS.get(column, f'update core.opportunity set "{column}" = null'))
        after = subject(con)
        moved = {name for name in before if before[name] != after[name]} - {"unreadable"}
        claimed = {name for name, several in MADE_OF.items() if column in several}
        assert claimed <= moved, f"these do not hang on {column}: {sorted(claimed - moved)}"
        assert moved - claimed <= ALSO.get(column, set()), f"these hang on {column} too: {sorted(moved - claimed)}"
        for table in tables:
            con.execute(f"delete from {table}; insert into {table} from {table.replace('.', '_')}")


def test_every_column_of_the_map_has_a_source_in_a_crm(con):
    told = {row[0] for row in con.execute("select column_name from core.lineage").fetchall()}
    assert {c for several in MADE_OF.values() for c in several if not c.startswith("evidence.")} <= told
    columns = {row[0] for row in con.execute("select column_name from (describe core.opportunity)").fetchall()}
    assert told <= columns


@pytest.mark.parametrize(
    ("condition", "kept", "value"),
    [
        ("is_won and amount > 5", ["amount"], False),
        ("is_open and amount > 5", ["amount"], None),
        ("is_open or amount > 5", ["amount"], True),
        ("not (amount > 5)", ["amount"], None),
        ("case when is_won then amount > 5 else true end", ["amount"], True),
        ("case when amount > 5 then true else true end", ["amount"], None),
        ("case when is_open then close_date is null else amount > 5 end", ["amount"], True),
        ("coalesce(amount, 0) = 0", ["next_step"], True),
    ],
)
def test_three_valued_logic(con, condition, kept, value):
    sql = f"select {guarded(con, condition)} from (select true as is_open, false as is_won, null as amount, null as close_date, $1 as unreadable)"
    assert con.execute(sql, [kept]).fetchall() == [(value,)]
