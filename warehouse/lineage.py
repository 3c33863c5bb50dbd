"""Where the columns of core.opportunity come from, for whoever asks without a warehouse: the text is views/core/lineage.sql alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

import duckdb

from warehouse.migrate import definitions

DEALS = {"salesforce": "Opportunity", "hubspot": "deals"}


@cache
def _stated() -> tuple[tuple[str, str, str], ...]:
    """(crm, column, source) of every row of core.lineage; a source is "Object" or "Object.Field"."""
    view = next(d for d in definitions("view") if d.name == "core.lineage")
    with duckdb.connect() as con:
        con.execute("create schema core")
        con.execute(view.sql)
        return tuple(con.execute("select crm, column_name, concat_ws('.', object, field) from core.lineage").fetchall())


def lineage(crm: str, mapped: Mapping[str, str] | None = None) -> dict[str, set[str]]:
    """What can tell each column of core.opportunity in a CRM: sets of "Object" and "Object.Field", any one of which will do.

    mapped: [sources.X.fields], evidence name to field; they are the columns `lost_reason` and `evidence.NAME`.
    """
    told: dict[str, set[str]] = {}
    for of, column, source in _stated():
        if of == crm:
            told.setdefault(column, set()).add(source)
    for evidence, name in (mapped or {}).items():
        column = evidence if evidence == "lost_reason" else f"evidence.{evidence}"
        told.setdefault(column, set()).add(f"{DEALS[crm]}.{name}")
    return told


def lost(crm: str, missing: Collection[str], mapped: Mapping[str, str] | None = None) -> dict[str, set[str]]:
    """The columns that nothing tells where `missing` ("Object", "Object.Field") cannot be read, each with what is missing of it.

    The same as the view core.unreadable says of the last sync.
    """
    gone = {column: sources for column, sources in lineage(crm, mapped).items() if sources <= set(missing)}
    return {column: sources & set(missing) for column, sources in gone.items()}
