"""A condition as it must be read where a source keeps fields from us: NULL, not FALSE or TRUE, wherever the answer hangs on one.

SQL's own three-valued logic would do, were columns that cannot be read always NULL and conditions never coalesced. Neither holds: a
field hidden since yesterday leaves its last values behind, and `coalesce(amount, 0) = 0` makes a missing column a finding. So every
comparison that reads such a column becomes NULL by itself; AND, OR, NOT and CASE around it then decide as far as they can:
`is_won and coalesce(amount, 0) <= 0` stays FALSE for an open deal, whether or not amounts can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import duckdb

from expectations.sql_text import quote

# Columns of `subject` and what they are made of: columns of core.opportunity (core.lineage says where those come from), and the
# fields mapped as evidence. Columns with a value of their own for "cannot be read" are here too: the report names their rules. Stage and
# closed and won flags are not: no CRM hides them.
MADE_OF: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "type": ("type",),
    "created_day": ("created_at",),
    "age_days": ("created_at",),
    "stage_entered_day": ("stage_entered_at",),
    "days_since_stage_change": ("stage_entered_at",),
    "days_in_stage": ("stage_entered_at",),
    "close_date": ("close_date",),
    "days_past_close_date": ("close_date",),
    "business_days_past_close_date": ("close_date",),
    "close_date_pushes": ("close_date_pushes",),
    "amount": ("amount",),
    "amount_home": ("amount",),
    "won_amount_median": ("amount",),
    "won_amount_p75": ("amount",),
    "probability": ("probability",),
    "stage_default_probability": ("stage_default_probability",),
    "forecast_category": ("forecast_category",),
    "next_step": ("next_step",),
    "next_step_synced": ("next_step",),
    "last_activity_day": ("last_activity_at",),
    "days_quiet": ("last_activity_at",),
    "activity_capability": ("last_activity_at",),
    "next_activity_day": ("next_activity_at",),
    "contact_count": ("contact_count",),
    "account_id": ("account_id",),
    "account_name": ("account_name",),
    "account_known": ("account_id", "account_name"),
    "account_described": ("account_id", "account_name"),
    "account_facts_in_use": ("account_id", "account_name"),
    "owner_id": ("owner_id",),
    "owner_name": ("owner_id", "owner_name"),
    "owner_active": ("owner_id", "owner_active"),
    "owner_is_seller": ("owner_id", "owner_active"),
    "description": ("description",),
    "description_in_use": ("description",),
    "lost_reason": ("lost_reason",),
    "need_evidence": ("evidence.need",),
    "fit_evidence": ("evidence.fit",),
}

Node = dict[str, Any]


def guarded(con: duckdb.DuckDBPyConnection, condition: str) -> str:
    """`condition`, NULL where it hangs on a column of the deal's list `unreadable`. con: any connection; nothing is read."""
    statement = _parsed(con, condition)
    expressions = statement["statements"][0]["node"]["select_list"]
    columns = _columns(expressions[0])
    if not columns:
        return condition
    if not _decides(expressions[0]):  # as it was written, for whoever reads the Validation Result
        return f"case when {unreadable(columns)} then null else {condition} end"
    expressions[0] = _guard(con, expressions[0])
    text = con.execute("select json_deserialize_sql($1::json)", [json.dumps(statement)]).fetchall()[0][0]
    return str(text).removeprefix("SELECT ")


def concerned(con: duckdb.DuckDBPyConnection, condition: str) -> frozenset[str]:
    """The columns of `condition` that a source may keep from us."""
    return _columns(_parsed(con, condition))


def unreadable(columns: Iterable[str]) -> str:
    """SQL condition: whether the deal's source keeps any of `columns` from us."""
    return f"list_has_any(unreadable, [{', '.join(quote(c) for c in sorted(columns))}])"


def named(columns: Iterable[str]) -> str:
    """SQL text expression: which of `columns` cannot be read, in words."""
    words = ", ".join(f"case when list_contains(unreadable, {quote(c)}) then {quote(c.replace('_', ' '))} end" for c in sorted(columns))
    return f"concat(concat_ws(', ', {words}), ' cannot be read in this source')"


def _parsed(con: duckdb.DuckDBPyConnection, condition: str) -> Node:
    tree: Node = json.loads(con.execute("select json_serialize_sql($1)", [f"select ({condition})"]).fetchall()[0][0])
    return tree


def _columns(node: Any) -> frozenset[str]:
    """Columns under `node` that a source may keep from us."""
    if isinstance(node, list):
        return frozenset().union(*map(_columns, node)) if node else frozenset()
    if not isinstance(node, dict):
        return frozenset()
    if node.get("class") == "COLUMN_REF":
        return frozenset({str(node["column_names"][-1]).lower()} & MADE_OF.keys())
    return _columns(list(node.values()))


def _decides(node: Node) -> bool:
    """Whether `node` makes one truth value of others, so that some of them may do."""
    return node["class"] in {"CONJUNCTION", "CASE"} or node["type"] == "OPERATOR_NOT"


def _guard(con: duckdb.DuckDBPyConnection, node: Node) -> Node:
    if not _columns(node):
        return node
    if _decides(node) and node["class"] != "CASE":
        return node | {"children": [_guard(con, child) for child in node["children"]]}
    if node["class"] == "CASE":
        checks = []
        for check in node["case_checks"]:
            if columns := _columns(check["when_expr"]):  # a branch whose condition cannot be told: neither it nor what follows may decide
                checks.append({"when_expr": _of(con, unreadable(columns)), "then_expr": _of(con, "null::boolean")})
            checks.append({"when_expr": check["when_expr"], "then_expr": _guard(con, check["then_expr"])})
        return node | {"case_checks": checks, "else_expr": _guard(con, node["else_expr"])}
    alone: Node = _of(con, f"case when {unreadable(_columns(node))} then null::boolean else true end")
    return alone | {"else_expr": node}


def _of(con: duckdb.DuckDBPyConnection, expression: str) -> Node:
    node: Node = _parsed(con, expression)["statements"][0]["node"]["select_list"][0]
    return node

