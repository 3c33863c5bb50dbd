"""Where the marks of the charts go. The templates draw them; here are only numbers, in units of the view box."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from expectations.report.text import day

WIDTH, LEFT, RIGHT = 760.0, 56.0, 8.0


@dataclass
class Axis:
    """Ticks as (position, label)."""

    x: list[tuple[float, str]] = field(default_factory=list)
    y: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Area:
    """Two areas on top of each other, as the `points` of polygons, with the line that tops both."""

    width: float
    height: float
    left: float
    base: float
    axis: Axis
    lower: str
    upper: str
    top: str
    breaks: list[tuple[float, str]]  # where the rule set changed: amounts on both sides are not comparable


@dataclass
class Bars:
    """Bars up and down from a common line: (x, width, y, height, label)."""

    width: float
    height: float
    left: float
    base: float
    axis: Axis
    up: list[tuple[float, float, float, float, str]]
    down: list[tuple[float, float, float, float, str]]


def compact(value: float) -> str:
    """An axis label: 1.5 M, 250 k."""
    for unit, size in (("bn", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def ticks(top: float, about: int = 4) -> list[float]:
    """0 and round steps up to the first at or above `top`."""
    if top <= 0:
        return [0.0]
    raw = top / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * 0.999)
    return [step * i for i in range(math.ceil(top / step * 0.999) + 1)]


def trusted_and_at_risk(trend: list[dict[str, Any]], height: float = 230.0) -> Area | None:
    """Trusted (below) and at-risk amounts over the days of `trend`; None with fewer than two days of amounts."""
    days = [row for row in trend if row["open_amount"] is not None]
    if len(days) < 2:
        return None
    base, top = height - 24.0, 8.0
    marks = ticks(max(float(row["open_amount"]) for row in days))
    if marks[-1] <= 0:
        return None
    at = _scale(days)

    def y(amount: Decimal | float) -> float:
        return base - (base - top) * max(0.0, float(amount)) / marks[-1]

    def points(pairs: list[tuple[float, float]]) -> str:
        return " ".join(f"{px:.1f},{py:.1f}" for px, py in pairs)

    floor = [(at(row["business_date"]), base) for row in days]
    middle = [(at(row["business_date"]), y(row["trusted_amount"])) for row in days]
    ceiling = [(at(row["business_date"]), y(row["open_amount"])) for row in days]
    return Area(
        WIDTH, height, LEFT, base,
        Axis(_dates(days, at), [(y(mark), compact(mark)) for mark in marks]),
        points(middle + floor[::-1]), points(ceiling + middle[::-1]), points(ceiling),
        [(at(row["business_date"]), row["rule_set_version"]) for row in days if row["is_break"]],
    )  # fmt: skip


def opened_and_resolved(trend: list[dict[str, Any]], height: float = 120.0) -> Bars | None:
    """Findings opened (up) and resolved (down) per day; None with fewer than two days, or where nothing moved.

    The first check of all opens everything at once and would flatten every later day: it is left out.
    """
    days = trend[1:] if len(trend) < 120 else trend
    most = max((max(int(row["opened"]), int(row["resolved"])) for row in days), default=0)
    if len(days) < 2 or most == 0:
        return None
    top, bottom = 8.0, height - 24.0
    middle, reach = (top + bottom) / 2, (bottom - top) / 2
    at = _scale(days, inset=14.0)
    span = max(1, (days[-1]["business_date"] - days[0]["business_date"]).days)
    width = max(1.5, min(18.0, 0.7 * (WIDTH - LEFT - RIGHT - 28.0) / span))

    def bar(row: dict[str, Any], key: str, up: bool) -> tuple[float, float, float, float, str]:
        size = reach * int(row[key]) / most
        x = at(row["business_date"]) - width / 2
        return (x, width, middle - size if up else middle, size, f"{day(row['business_date'])}: {row[key]} {key}")

    return Bars(
        WIDTH, height, LEFT, middle,
        Axis(_dates(days, at), [(top, str(most)), (middle, "0"), (bottom, str(most))]),
        [bar(row, "opened", True) for row in days], [bar(row, "resolved", False) for row in days],
    )  # fmt: skip


def _scale(days: list[dict[str, Any]], inset: float = 0.0) -> Any:
    first, span = days[0]["business_date"], max(1, (days[-1]["business_date"] - days[0]["business_date"]).days)
    room = WIDTH - LEFT - RIGHT - 2 * inset
    return lambda when: LEFT + inset + room * (when - first).days / span


def _dates(days: list[dict[str, Any]], at: Any) -> list[tuple[float, str]]:
    """Labels for the last day and every so many before it, far enough apart to be read."""
    shown: list[tuple[float, str]] = []
    for row in reversed(days):
        when: date = row["business_date"]
        if not shown or shown[-1][0] - at(when) >= 88:
            shown.append((at(when), f"{when.day} {when:%b}"))
    return shown[::-1]
