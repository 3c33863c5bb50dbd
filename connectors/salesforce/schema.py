"""From an object's declaration and the org's describe to a SELECT: only fields that exist and that this user may read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote_plus

from connectors.landing import Field
from connectors.salesforce.client import Client, Refused, soql_time
from connectors.salesforce.objects import OPPORTUNITY, SObject

# Values that SOQL returns as objects (REST) or not at all (Bulk); their parts are fields of their own.
COMPOUND = frozenset({"address", "location", "base64", "complexvalue"})
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
LONGEST_PULL = timedelta(hours=3)  # what the last pull read was made by its end at the latest
URL_LIMIT = 8000  # characters of path and query; Salesforce and proxies on the way begin to refuse from about 8 KB on
GONE_FIELD = re.compile(r"No such column '([A-Za-z0-9_]+)'")


@dataclass(frozen=True)
class Selection:
    """What to ask for one object in this org."""

    spec: SObject
    fields: tuple[Field, ...]
    cursor: str | None
    where: str
    missing: tuple[str, ...] = ()
    described: tuple[Field, ...] = ()  # the fields as they were chosen, whatever was left away since
    dropped: tuple[str, ...] = field(default=())
    cut: tuple[str, ...] = ()  # of `dropped`, those that only did not fit into the address
    operation: Literal["query", "queryAll"] = "queryAll"
    only: str = ""  # a condition that the query is about: `where` may be left away, this never
    overlap: timedelta = timedelta(0)  # how far `since` lies before the last pull

    @property
    def names(self) -> list[str]:
        """Selected fields; the cursor stands first, so that it can be found in CSV bytes without parsing them."""
        names = [f.name for f in self.fields]
        if self.cursor:
            names.remove(self.cursor)
            names.insert(0, self.cursor)
        return names

    def soql(self, since: datetime | None) -> str:
        conditions = [condition for condition in (self.only, self.where) if condition]
        if since is not None and self.cursor:
            if self.where and self.spec.moves:
                conditions = [f"({self.where} OR CreatedDate < {soql_time(since + self.overlap + LONGEST_PULL)})"]
            conditions.append(f"{self.cursor} >= {soql_time(since)}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {', '.join(self.names)} FROM {self.spec.table}{where}"

    def url(self, client: Client, since: datetime | None) -> str:
        return f"{client.data}/{self.operation}/?q={quote_plus(self.soql(since), safe=',():')}"

    def without(self, name: str) -> Selection:
        """The same without a field that the query refuses although the describe listed it."""
        return replace(self, fields=tuple(f for f in self.fields if f.name != name), dropped=(*self.dropped, name))

    def unfiltered(self) -> Selection:
        """The same without the filter, for servers that do not know it."""
        return replace(self, where="")

    def without_bin(self) -> Selection:
        """The same without the recycle bin, for servers that do not offer queryAll: getDeleted and full pulls tell what went."""
        return replace(self, operation="query")

    def short(self, client: Client, since: datetime | None) -> Selection:
        """The same with as many fields as fit into a URL, standard ones first, for servers that offer no Bulk API. The others of a deal
        are read beside it (connectors/salesforce/refresh.py)."""
        keep = sorted(self.fields, key=lambda f: (f.name not in self._needed(), f.custom))
        fitting = self
        while len(fitting.url(client, since)) > URL_LIMIT and len(keep) > 1:
            last = keep.pop()
            fitting = replace(fitting.without(last.name), cut=(*fitting.cut, last.name))
        return fitting

    @property
    def is_of_deals(self) -> bool:
        """Whether fields that do not fit are read beside."""
        return self.spec.table == OPPORTUNITY.name

    def _needed(self) -> set[str | None]:
        return {self.spec.key, self.cursor, *self.spec.expected}

    def notice(self) -> str | None:
        """What is not in this pull although it would be of use, in words; None when nothing."""
        said = []
        if self.missing:
            said.append(f"not in the org, or hidden from the user by field-level security: {', '.join(self.missing)}")
        if refused := [name for name in self.dropped if name not in self.cut or not self.is_of_deals]:
            shown, more = refused[:8], len(refused) - 8
            said.append(f"refused or left out: {', '.join(shown)}" + (f" and {more} more" if more > 0 else ""))
        if self.spec.deletions == "flag" and self.operation == "query":
            said.append("the org does not offer queryAll: run sync --full now and then to find what went")
        return "; ".join(said) or None


def select(client: Client, spec: SObject, mapped: Iterable[str] = ()) -> Selection:
    """Ask the org what `spec` has. mapped: further fields the configuration counts on. Raises Refused when it has no such object."""
    described: dict[str, Any] = client.call(spec.name, f"sobjects/{spec.table}/describe") or {}
    if described.get("queryable") is False:
        raise Refused(403, "NOT_QUERYABLE", "")
    offered = {
        f["name"]: Field(f["name"], str(f.get("type") or "string"), f.get("label"), bool(f.get("custom")), bool(f.get("calculated")))
        for f in described.get("fields") or ()
        if NAME.fullmatch(str(f.get("name", ""))) and f.get("type") not in COMPOUND and not f.get("deprecatedAndHidden")
    }
    mapped = tuple(mapped)
    wanted = spec.fields or tuple(name for name in offered if name not in spec.rotting or name in mapped)
    cursor = next((name for name in spec.cursor if name in offered), None)
    chosen = [offered[name] for name in wanted if name in offered]
    if cursor and cursor not in wanted:
        chosen.append(offered[cursor])
    if spec.key not in {f.name for f in chosen}:
        raise Refused(403, "NO_FIELDS", "")
    missing = tuple(name for name in dict.fromkeys((*spec.expected, *mapped)) if name not in offered)
    # Setup objects have no recycle bin, and not every server takes queryAll for them.
    operation: Literal["query", "queryAll"] = "queryAll" if spec.deletions == "flag" else "query"
    overlap = timedelta(minutes=client.settings.overlap_minutes)
    return Selection(spec, tuple(chosen), cursor, spec.where, missing, tuple(chosen), operation=operation, overlap=overlap)
