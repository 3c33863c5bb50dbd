"""What stamps do not tell: values that move while the record's stamp stays, and fields that were not there the last time.

An increment delivers the records that somebody saved. Beside it, `Opportunity.fields` lands partial records (docs/landing.md):

- Each time, of the open deals: formulas, roll-ups, and the standard fields of objects.UNSTAMPED. They follow parents, activities
  and the calendar, and Salesforce stamps none of that.
- Of all deals, those in the recycle bin too: fields that are new, visible again or of another type than the warehouse knows. What
  was saved in them while we could not see them has stamps that lie far back.
- Of the deals that an increment brings, fields that do not fit into the address of its query, where there is no Bulk API.

Days since something and the like (SObject.rotting) are not read at all, unless the configuration maps them: they would change every
open deal every night, and the instants that they count from are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Literal

from connectors.landing import Field
from connectors.salesforce.client import soql_time
from connectors.salesforce.objects import OPPORTUNITY_FIELDS, UNSTAMPED
from connectors.salesforce.schema import Selection

OPEN = "IsClosed = false"


def type_of(field: Field) -> str:
    """A field's type as it is remembered. A formula that becomes a plain field holds other values: that is another type."""
    return f"calculated {field.type}" if field.calculated else field.type


def unknown(fields: Iterable[Field], known: Mapping[str, str] | None) -> list[Field]:
    """Those of `fields` that are new, visible again or retyped. known: {name: type_of}; without it everything is as new as the rest,
    and nothing needs a reading of its own."""
    return [f for f in fields if known.get(f.name) != type_of(f)] if known else []


def beside(deals: Selection, known: Mapping[str, str] | None, mapped: Iterable[str], *, whole: bool, since: datetime | None) -> list[Selection]:
    """What to read beside `deals`, which is given as it was read in the end. Empty when there is nothing.

    mapped: fields of the configuration; such as are left out otherwise are refreshed each time. whole: all deals have just been read;
    since: from when on, where not.
    """
    parts = []
    if not whole and (moving := partial(deals, known, mapped)):
        parts.append(moving)
    asked = {f.name for part in parts if not part.where for f in part.fields}
    if rest := [f for f in _left_out(deals) if f.name not in asked]:
        only = f"{deals.cursor} >= {soql_time(since)}" if since and deals.cursor and not whole else ""
        parts.append(_part(deals, rest, only=only, operation=deals.operation))
    return parts


def rest_of(part: Selection) -> list[Selection]:
    """What to read because it did not fit into the address of `part`, as it was read in the end."""
    rest = _left_out(part)
    return [replace(part, fields=(part.fields[0], *rest), described=(part.fields[0], *rest), dropped=(), cut=())] if rest else []


def partial(deals: Selection, known: Mapping[str, str] | None, mapped: Iterable[str] = ()) -> Selection | None:
    """What moves without a stamp, of open deals; with what is new, of all of them. None when there is nothing."""
    mapped = set(mapped)
    offered = [*deals.fields, *_left_out(deals)]
    missed = unknown(offered, known)
    chosen = [f for f in offered if f in missed or f.calculated or f.name in UNSTAMPED or (f.name in deals.spec.rotting and f.name in mapped)]
    if missed:
        return _part(deals, chosen, operation=deals.operation) if chosen else None
    is_open = OPEN if any(f.name == "IsClosed" for f in deals.fields) else ""
    return _part(deals, chosen, where=is_open, operation="query") if chosen else None


def _left_out(selection: Selection) -> list[Field]:
    """Fields that did not fit into the address."""
    return [f for f in selection.described if f.name in selection.cut and f.name != selection.spec.key]


def _part(deals: Selection, chosen: Iterable[Field], *, operation: Literal["query", "queryAll"], where: str = "", only: str = "") -> Selection:
    key = next(f for f in deals.fields if f.name == deals.spec.key)
    fields = (key, *(f for f in chosen if f.name != key.name))
    return Selection(OPPORTUNITY_FIELDS, fields, cursor=None, where=where, described=fields, operation=operation, only=only)
