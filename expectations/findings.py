"""From Great Expectations' judgement to findings: which deals fail, what each one is told, and what that does to the episodes.

The expressions come out of the Validation Result itself, so what is written is what was judged; and what was counted there is
counted again here, per rule, before anything is written and once more on what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb

from expectations.errors import ReconciliationError
from expectations.judge import Judgement
from expectations.rule import POINTS, Rule
from expectations.verdict import VERDICTS, Tally, reason, verdict

_ENUM = "enum(" + ", ".join(f"'{v}'" for v in VERDICTS) + ")"


def judge_deals(con: duckdb.DuckDBPyConnection, rules: Iterable[Rule], judgement: Judgement) -> None:
    """Makes plumbline_check.judged (a row per deal: verdict of every rule, failures as a list), .flag (a row per failure),
    .tally (counts per source and rule) and .unknown (why deals cannot be judged). Raises ReconciliationError."""
    ran = [rule for rule in rules if rule.rule_id in judgement.kwargs]
    _make_judged(con, ran, judgement.kwargs)
    con.execute(
        "create or replace table plumbline_check.flag as"
        " select opportunity_key, source, failure.* from"
        " (select opportunity_key, source, unnest(failures) as failure from plumbline_check.judged)"
    )
    _make_tally(con, ran)
    _make_unknown(con, ran, judgement)
    _reconcile(con, judgement.tallies)


def _make_judged(con: duckdb.DuckDBPyConnection, rules: list[Rule], kwargs: Mapping[str, Mapping[str, str]]) -> None:
    verdicts = ",\n".join(f'({verdict(kwargs[r.rule_id])})::{_ENUM} as "{r.rule_id}"' for r in rules)
    alerts = [r for r in rules if r.state == "alert" and POINTS[r.severity]]
    applicable = " + ".join(f"if(\"{r.rule_id}\" <> 'na', {POINTS[r.severity]}, 0)" for r in alerts) or "0"
    evaluable = " + ".join(f"if(\"{r.rule_id}\" not in ('na', 'unknown'), {POINTS[r.severity]}, 0)" for r in alerts) or "0"
    # A CASE computes its branch for the rows that take it only: messages cost what the failures cost, not the deals.
    failures = ",\n".join(
        f"case when \"{r.rule_id}\" in ('fail', 'waived') then {{'rule_id': '{r.rule_id}', 'severity': {r.severity_sql},"
        f" 'waived': \"{r.rule_id}\" = 'waived', 'message': {r.message_sql}, 'evidence': {r.evidence_sql}::varchar,"
        " 'owner_id': owner_id, 'amount_home': amount_home} end"
        for r in rules
    )
    listed = f"list_filter([{failures}], lambda failure: failure is not null)" if rules else _NO_FAILURES
    columns = "".join(f', "{r.rule_id}"' for r in rules)
    con.execute(
        f"""create or replace table plumbline_check.judged as
        with verdicts as (select *{"," if rules else ""} {verdicts} from plumbline_check.subject)
        select opportunity_key, source, {applicable} as applicable_points, {evaluable} as evaluable_points{columns},
               {listed} as failures
        from verdicts"""
    )


_NO_FAILURES = (
    "[]::struct(rule_id varchar, severity varchar, waived boolean, message varchar, evidence varchar, owner_id varchar,"
    " amount_home decimal(18, 2))[]"
)


def _make_tally(con: duckdb.DuckDBPyConnection, rules: list[Rule]) -> None:
    con.execute(
        "create or replace table plumbline_check.tally"
        " (source varchar, rule_id varchar, applicable bigint, unknown bigint, waived bigint, failed bigint)"
    )
    if not rules:
        return
    columns = ", ".join(f'"{r.rule_id}"' for r in rules)
    con.execute(
        f"""insert into plumbline_check.tally
        with each as (unpivot (select source, {columns} from plumbline_check.judged) on {columns} into name rule_id value verdict)
        select source, rule_id, count(*) filter (verdict <> 'na'), count(*) filter (verdict = 'unknown'),
               count(*) filter (verdict = 'waived'), count(*) filter (verdict = 'fail')
        from each group by source, rule_id"""
    )


def _make_unknown(con: duckdb.DuckDBPyConnection, rules: list[Rule], judgement: Judgement) -> None:
    """One row per source and rule with deals that cannot be judged: '312 deals: contacts of this source cannot be read; …'."""
    con.execute("create or replace table plumbline_check.unknown (source varchar, rule_id varchar, reason varchar)")
    for rule in rules:
        if judgement.tallies[rule.rule_id].unknown:
            con.execute(
                f"""insert into plumbline_check.unknown
                with reasons as (
                    select subject.source, {reason(judgement.kwargs[rule.rule_id])} as reason, count(*) as deals
                    from plumbline_check.subject join plumbline_check.judged using (opportunity_key)
                    where judged."{rule.rule_id}" = 'unknown' group by all
                )
                select source, ?, string_agg(concat(deals, if(deals = 1, ' deal: ', ' deals: '), reason), '; ' order by deals desc)
                from reasons group by source""",
                [rule.rule_id],
            )


def _reconcile(con: duckdb.DuckDBPyConnection, tallies: Mapping[str, Tally]) -> None:
    """Our verdicts, and the flags made of them, against Great Expectations' counts."""
    ours: dict[str, tuple[int, ...]] = {
        str(r[0]): tuple(int(n) for n in r[1:])
        for r in con.execute(
            "select rule_id, sum(applicable), sum(unknown), sum(waived), sum(failed) from plumbline_check.tally group by rule_id"
        ).fetchall()
    }
    flags = {
        str(r[0]): (int(r[1]), int(r[2]))
        for r in con.execute(
            "select rule_id, count(*) filter (waived), count(*) filter (not waived) from plumbline_check.flag group by rule_id"
        ).fetchall()
    }
    mismatches = []
    for rule_id, gx in tallies.items():
        mine = ours.get(rule_id, (0, 0, 0, 0))
        if mine != (gx.applicable, gx.unknown, gx.waived, gx.failed):
            mismatches.append(f"{rule_id} judged {mine[3]} of {mine[0]} deals as failing, counted {gx.failed} of {gx.applicable}")
        elif flags.get(rule_id, (0, 0)) != (gx.waived, gx.failed):
            mismatches.append(f"{rule_id} has {sum(flags.get(rule_id, (0, 0)))} flags, counted {gx.waived + gx.failed}")
    if mismatches:
        raise ReconciliationError(mismatches)


def reconcile_written(con: duckdb.DuckDBPyConnection, tallies: Mapping[str, Tally]) -> None:
    """The findings table itself, inside the transaction that wrote it: open ones are the failures, waived ones the waived."""
    rows = con.execute(
        "select rule_id, count(*) filter (state = 'waived'), count(*) filter (state = 'open') from quality.finding"
        " where state <> 'resolved' group by rule_id"
    ).fetchall()
    stored = {str(r[0]): (int(r[1]), int(r[2])) for r in rows}
    mismatches = [
        f"{rule_id} has {sum(stored.get(rule_id, (0, 0)))} findings, counted {gx.waived + gx.failed}"
        for rule_id, gx in tallies.items()
        if stored.get(rule_id, (0, 0)) != (gx.waived, gx.failed)
    ]
    if mismatches:
        raise ReconciliationError(mismatches)
