"""What stamps do not tell: values that move while the record's stamp stays, and fields that were not there the last time.

An increment delivers the records that somebody saved. Beside it, `Opportunity.fields` lands partial records (docs/landing.md):

- Each time, of the open deals: formulas, roll-ups, and the standard fields of objects.UNSTAMPED. They follow parents, activities
  and the calendar, and Salesforce stamps none of that.
- Of all deals, those in the recycle bin too: fields that are new, visible again or of another type than the warehouse knows. What
  was saved in them while we could not see them has stamps that lie far back.

Days since something and the like (SObject.rotting) are not read at all, unless the configuration maps them: they would change every
open deal every night, and the instants that they count from are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from connectors.landing import Field
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


def partial(deals: Selection, known: Mapping[str, str] | None, mapped: Iterable[str] = ()) -> Selection | None:
    """What to read beside an increment of `deals`, which is given as it was read in the end: what was refused is not asked for again.

    None when there is nothing. mapped: fields of the configuration; such as are left out otherwise are refreshed each time.
    """
    mapped = set(mapped)
    missed = unknown(deals.fields, known)
    moving = [f for f in deals.fields if f.calculated or f.name in UNSTAMPED or (f.name in deals.spec.rotting and f.name in mapped)]
    chosen = [f for f in deals.fields if f.name != deals.spec.key and (f in moving or f in missed)]
    if not chosen:
        return None
    key = next(f for f in deals.fields if f.name == deals.spec.key)
    knows_open = any(f.name == "IsClosed" for f in deals.fields)
    return Selection(
        OPPORTUNITY_FIELDS,
        (key, *chosen),
        cursor=None,
        where=OPEN if knows_open and not missed else "",
        operation=deals.operation if missed else "query",
    )
