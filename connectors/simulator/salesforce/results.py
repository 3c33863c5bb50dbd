"""Results of queries, cut into pages: a result that does not fit one answer is kept as a table until its pages are fetched."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from connectors.simulator.salesforce.compile import Compiled, compile_query
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.ids import FIRST_NUMBER, make_id

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

LIFETIME = timedelta(days=2)  # of a query locator
MOST = 2000  # records of a page
KEPT = 20  # open results; the oldest goes first


def store(org: SalesforceOrg, compiled: Compiled, table: str) -> int:
    """Keep the result of a query as scratch.<table>, its rows numbered from 0 in `_rn`. Gives the number of rows."""
    with org.reading() as cursor:
        cursor.execute(f"CREATE TABLE scratch.{table} AS SELECT row_number() OVER () - 1 AS _rn, * FROM ({compiled.sql})")
        return int(cursor.execute(f"SELECT count(*) FROM scratch.{table}").fetchall()[0][0])


def drop(org: SalesforceOrg, table: str) -> None:
    with org.reading() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS scratch.{table}")


@dataclass
class _Stored:
    table: str
    row: str  # SQL of a record's JSON text
    total: int
    batch: int
    opened: datetime


class Results:
    """REST query results of one org."""

    def __init__(self, org: SalesforceOrg) -> None:
        self.org = org
        self._stored: OrderedDict[str, _Stored] = OrderedDict()
        self._lock = threading.Lock()
        self._opened = 0

    def query(self, text: str, version: str, *, all_rows: bool, batch: int) -> bytes:
        """The answer to a query: its first page as JSON. Raises SalesforceError."""
        org = self.org
        compiled = compile_query(text, org.context(), all_rows=all_rows, version=version)
        with org.reading() as cursor:
            if compiled.kind == "count":
                n = int(cursor.execute(compiled.sql).fetchall()[0][0])
                return _page([], n, None)
            row = compiled.json_row(org.objects, version)
            batch = min(batch, org.query_page or batch)
            limit = 2000 if compiled.kind == "aggregate" else batch
            first = cursor.execute(f"SELECT {row} FROM ({compiled.sql} ) r LIMIT {limit + 1}").fetchall()
        if len(first) <= limit:
            return _page([record for (record,) in first], len(first), None)
        if compiled.kind == "aggregate":
            raise SalesforceError(
                "EXCEEDED_ID_LIMIT", "Aggregate query does not support queryMore(), use LIMIT to restrict the results to a single batch"
            )
        with self._lock:
            self._opened += 1
            number = self._opened
        table = f"query_{number}"
        total = store(org, compiled, table)
        locator = make_id("01g", FIRST_NUMBER + number)
        with self._lock:
            self._stored[locator] = _Stored(table, row, total, batch, org.clock.now())
            old = [self._stored.popitem(last=False)[1] for _ in range(len(self._stored) - KEPT)]
        for stored in old:
            drop(org, stored.table)
        return self.page(f"{locator}-0", version)

    def clear(self) -> None:
        """Forget every open result."""
        with self._lock:
            stored = list(self._stored.values())
            self._stored.clear()
        for one in stored:
            drop(self.org, one.table)

    def page(self, locator: str, version: str, batch: int | None = None) -> bytes:
        """A page by its locator, `<id>-<number of the first record>`. Raises INVALID_QUERY_LOCATOR."""
        key, _, start_text = locator.partition("-")
        with self._lock:
            stored = self._stored.get(key)
        if stored is None or not start_text.isdigit() or self.org.clock.now() - stored.opened > LIFETIME:
            raise SalesforceError("INVALID_QUERY_LOCATOR", "invalid query locator")
        start, size = int(start_text), min(batch or stored.batch, self.org.query_page or MOST)
        if start >= stored.total:
            raise SalesforceError("INVALID_QUERY_LOCATOR", "invalid query locator")
        with self.org.reading() as cursor:
            records = cursor.execute(
                f"SELECT {stored.row} FROM scratch.{stored.table} r WHERE r._rn >= {start} AND r._rn < {start + size} ORDER BY r._rn"
            ).fetchall()
        end = start + size
        following = f"/services/data/v{version}/query/{key}-{end}" if end < stored.total else None
        return _page([record for (record,) in records], stored.total, following)


def _page(records: list[str], total: int, following: str | None) -> bytes:
    more = f'"done":false,"nextRecordsUrl":"{following}"' if following else '"done":true'
    return f'{{"totalSize":{total},{more},"records":[{",".join(records)}]}}'.encode()
