"""Rows and the greatest cursor of landed bytes, found by their marks: no record is parsed into Python objects."""

from __future__ import annotations

import csv
import mmap
import re
from datetime import UTC, datetime
from pathlib import Path

# In CSV the cursor is the first column, and Salesforce quotes each value. A quote inside a value is doubled, so that no text
# of a seller's can look like the beginning of a record.
_CSV_ROW = re.compile(rb'\n"((?:19|20)\d\d-\d\d-\d\dT[0-9:.]{8,15}(?:Z|[+-]\d\d:?\d\d))"')


def greatest(stamps: list[bytes]) -> datetime | None:
    """The latest of stamps of one spelling and one zone, as Salesforce gives them: then text order is time order."""
    return instant(max(stamps).decode()) if stamps else None


def instant(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def scan_json(records: bytes, key: str, cursor: str | None) -> tuple[int, datetime | None]:
    """Records in a JSON array of flat records and their greatest cursor. In JSON a quote inside a text is escaped, so that
    the marks stand for keys only."""
    rows = len(re.findall(rb'"%s"\s*:\s*"' % key.encode(), records))
    stamps = re.findall(rb'"%s"\s*:\s*"([^"]+)"' % cursor.encode(), records) if cursor else []
    return rows, greatest(stamps)


def scan_csv(path: Path, cursor: str | None) -> tuple[int, datetime | None]:
    """Data rows of a CSV file and the greatest value of its column `cursor`."""
    with path.open("rb") as file:
        if cursor and (head := file.readline()).lstrip(b'\xef\xbb\xbf"').startswith(cursor.encode()):
            file.seek(0)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                stamps = _CSV_ROW.findall(data)
                ends_whole = data[-1:] == b"\n"
            if stamps or (ends_whole and path.stat().st_size == len(head)):
                return len(stamps), greatest(stamps)
    return _parse_csv(path, cursor)


def _parse_csv(path: Path, cursor: str | None) -> tuple[int, datetime | None]:
    """The slow way, for objects without a cursor and for servers that write CSV in a manner of their own."""
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        header = next(reader, [])
        column = header.index(cursor) if cursor in header else None
        rows, latest = 0, None
        for record in reader:
            rows += 1
            value = instant(record[column]) if column is not None and column < len(record) else None
            latest = value if value and (latest is None or value > latest) else latest
    return rows, latest


def header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        return next(csv.reader(text), [])
