"""How values read on the page. Missing values are a dash, never a zero."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

NONE = "–"
MINUS = "−"


def whole(value: Any) -> str:
    """1234567.5 -> 1,234,568 (half to even, as banks do)."""
    if value is None:
        return NONE
    rounded = int(Decimal(value).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    return f"{rounded:,}".replace("-", MINUS)


def one(value: Any) -> str:
    """A score: one decimal."""
    return NONE if value is None else f"{Decimal(value):,.1f}".replace("-", MINUS)


def percent(share: Any) -> str:
    """0 to 1 as a whole percentage; what is not nothing never reads 0 %, and what is not all never reads 100 %."""
    if share is None:
        return NONE
    part = float(share)
    if 0 < part < 0.005:
        return "<1 %"
    if 0.995 <= part < 1:
        return ">99 %"
    return f"{part * 100:.0f} %"


def signed(value: Any, digits: int = 0) -> str:
    """+1,234 or −1,234; ±0 when nothing is left after rounding."""
    if value is None:
        return NONE
    number = round(Decimal(value), digits)
    return "±0" if number == 0 else ("+" if number > 0 else MINUS) + f"{abs(number):,.{digits}f}"


def day(value: date | None) -> str:
    return NONE if value is None else f"{value.day} {value:%b %Y}"


def instant(value: datetime | None, zone: str) -> str:
    """An instant as people in the business read it: 23 Nov 2026, 06:00."""
    if value is None:
        return NONE
    local = _aware(value).astimezone(ZoneInfo(zone))
    return f"{day(local)}, {local:%H:%M}"


def ago(value: datetime | None, now: datetime) -> str:
    """How long before `now`, in the largest unit that fits."""
    if value is None:
        return "never"
    minutes = int((now - _aware(value)).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= size * (2 if unit != "minute" else 1):
            return f"{minutes // size} {unit}{'s' if minutes // size > 1 else ''} ago"
    return NONE


def bytes_(value: int | None) -> str:
    if value is None:
        return NONE
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value} B"


def count(n: int | None, noun: str, plural: str | None = None) -> str:
    """1 deal, 2,000 deals."""
    return f"{whole(n or 0)} {noun if n == 1 else plural or noun + 's'}"


def safe_url(value: str | None) -> str | None:
    """The address if a browser may be sent there: http or https with a host. Anything else (javascript:, data:) is no link."""
    if not value or any(c.isspace() or ord(c) < 32 for c in value):
        return None
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        return None
    return value if parts.scheme in ("http", "https") and host else None


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)
