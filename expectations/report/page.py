"""From the blocks of a report to HTML: autoescape everywhere, and a policy under which a browser runs our own script alone."""

from __future__ import annotations

import base64
import calendar
import hashlib
from datetime import date
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from expectations.report import attention, charts, text
from expectations.report.data import FINDINGS, Report, Row

TEMPLATES = Path(__file__).parent / "templates"

STAGES = {
    "prequalified": "Prequalified", "qualified": "Qualified", "discovery": "Discovery", "proposal": "Proposal",
    "negotiation": "Negotiation", "on_hold": "On hold", "unmapped": "Unmapped", "closed_won": "Closed won",
    "closed_lost": "Closed lost",
}  # fmt: skip


def render(report: Report, *, title: str | None = None) -> str:
    """The whole page as text. Everything that comes from the warehouse is escaped; style and script are our own files."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "whole": text.whole, "one": text.one, "percent": text.percent, "signed": text.signed, "day": text.day,
        "bytes": text.bytes_, "safe_url": text.safe_url, "instant": lambda value: text.instant(value, report.zone),
        "ago": lambda value: text.ago(value, report.now),
        "stage": lambda value: STAGES.get(value, value), "prose": _prose,
    }  # fmt: skip
    env.globals |= {"count": text.count, "share": attention.share}
    return env.get_template("index.html.j2").render(
        r=report,
        title=title or "Pipeline quality",
        notices=attention.notices(report),
        reconciles=attention.reconciles(report),
        area=charts.trusted_and_at_risk(report.trend),
        bars=charts.opened_and_resolved(report.trend),
        months=[_bucket(row, report.business_date) for row in report.calendar],
        delta=_delta(report),
        finding_rows=FINDINGS,
        style=Markup(style),  # noqa: S704  (our own file, with nothing put into it)
        script=Markup(script),  # noqa: S704
        policy="; ".join(
            (
                "default-src 'none'", f"style-src '{_digest(style)}'", f"script-src '{_digest(script)}'",
                "base-uri 'none'", "form-action 'none'",
            )
        ),
    )  # fmt: skip


def _prose(words: str) -> Markup:
    """Text of our own rules, in which `backticks` mark what is typed."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(words.split("`"))
    )


def _digest(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _delta(report: Report) -> dict[str, list[tuple[str, Any]]]:
    """Differences to the previous check and to the one of a week ago: per figure, (since when, difference).

    Scores of different rule sets are not compared.
    """
    if report.run is None:
        return {}
    now = report.run
    found: dict[str, list[tuple[str, Any]]] = {}
    for past in _apart(report):
        label = text.day(past["business_date"])
        if past["business_date"] == now["business_date"]:
            label = text.instant(past["as_of"], report.zone)
        for key in ("open_amount", "trusted_amount", "at_risk_amount", "score"):
            comparable = key == "open_amount" or past["rule_set_version"] == now["rule_set_version"]
            if comparable and now[key] is not None and past[key] is not None:
                found.setdefault(key, []).append((label, now[key] - past[key]))
    return found


def _apart(report: Report) -> list[Row]:
    """The previous check and the week's, once if they are one and the same."""
    found = [row for row in (report.previous, report.week) if row]
    return found[:1] if len(found) == 2 and found[0]["run_id"] == found[1]["run_id"] else found


def _bucket(row: Row, today: date) -> Row:
    """A row of the calendar with the words for its bucket."""
    words = {
        "past_91": "More than 90 days past due", "past_31": "31 to 90 days past due", "past_1": "1 to 30 days past due",
        "later": "Later", "none": "No close date",
    }  # fmt: skip
    key = row["bucket"]
    label = words.get(key)
    if label is None:
        year, month = (int(part) for part in key.split("-"))
        label = f"{calendar.month_name[month]} {year}"
        if (year, month) == (today.year, today.month):
            label += ", from today"
    return row | {"label": label, "past": key.startswith("past")}
