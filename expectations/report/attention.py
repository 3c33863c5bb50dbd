"""What an admin has to act on today, worst first. Each line says what, how much, and leads to its block."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from expectations.report.data import Report
from expectations.report.text import ago, count, instant, whole

STALE = timedelta(hours=36)  # a nightly job that missed one night


@dataclass
class Notice:
    """level: act (something is broken or lost), look (something to decide)."""

    level: str
    text: str
    anchor: str


def notices(report: Report) -> list[Notice]:
    found = [*_sync(report), *_check(report), *_data(report), *_writeback(report)]
    return sorted(found, key=lambda notice: notice.level != "act")


def _sync(report: Report) -> list[Notice]:
    found = []
    for source in report.sources:
        good = source["good_at"]
        if source["status"] in ("failed", "interrupted"):
            data = f"Its deals are as of {instant(good, report.zone)}." if good else "It has never been read to the end."
            found.append(Notice("act", f"The last sync of {source['source']} {source['status']}. {data}", "sync"))
        elif good is None or report.now - good > STALE:
            found.append(Notice("act", f"{source['source']} was last synced {ago(good, report.now)}.", "sync"))
        if source["used_share"] is not None and source["used_share"] >= 0.8:
            used = f"{whole(source['daily_used'])} of {whole(source['daily_limit'])}"
            found.append(Notice("look", f"{source['source']} has used {used} API calls of its day.", "sync"))
    return found


def _check(report: Report) -> list[Notice]:
    run = report.run
    if run is None:
        return []
    found = []
    if report.now - run["as_of"] > STALE:
        text = f"The last check is from {instant(run['as_of'], report.zone)}: findings and scores are that old."
        found.append(Notice("act", text, "top"))
    broken = [rule["rule_id"] for rule in report.rules if rule["error"]]
    if broken:
        text = f"{count(len(broken), 'rule')} could not be run: {_some(broken)}. What was found before stands."
        found.append(Notice("act", text, "rules"))
    if not reconciles(report):
        text = "The findings do not add up to what the check recorded: run the check again before acting on them."
        found.append(Notice("act", text, "changes"))
    found += _kept_from_us(report)
    blind = [rule["rule_id"] for rule in report.rules if rule["cannot_judge"] and not rule["error"]]
    if blind:
        text = f"{count(len(blind), 'rule')} cannot judge most deals for want of data: {_some(blind)}."
        found.append(Notice("look", text, "unjudged"))
    loud = [rule["rule_id"] for rule in report.rules if rule["is_process_gap"]]
    if loud:
        verb = "fails" if len(loud) == 1 else "fail"
        text = f"{_some(loud)} {verb} on more than 60 % of deals: a gap in the process, not in the deals."
        found.append(Notice("look", text, "rules"))
    return found


def _kept_from_us(report: Report) -> list[Notice]:
    """One line per source: what its CRM does not show, and how many rules that costs."""
    found = []
    for source in dict.fromkeys(row["source"] for row in report.unreadable):
        rows = [row for row in report.unreadable if row["source"] == source and any(rule["unknown"] for rule in row["rules"])]
        rules = {rule["rule_id"] for row in rows for rule in row["rules"] if rule["unknown"]}
        if rules:
            what = _some([row["field"] or row["object"] for row in rows])
            text = f"{source} does not show {what}: {count(len(rules), 'rule')} cannot judge all of its deals."
            found.append(Notice("look", text, "unjudged"))
    return found


def _data(report: Report) -> list[Notice]:
    found = []
    if report.unmapped:
        first = report.unmapped[0]
        amount = first["all_amount"]
        money = "" if amount is None else f" ({report.currency or 'home currency'} {whole(amount)})"
        where = count(first["stages"], "stage")
        text = f"{count(first['all_deals'], 'open deal')}{money} in {where} that no canonical stage is known for."
        found.append(Notice("look", text, "gaps"))
    if report.totals["without_rate"]:
        deals = count(report.totals["without_rate"], "open deal")
        text = f"{deals} in a currency without an exchange rate: in no sum on this page."
        found.append(Notice("look", text, "gaps"))
    if report.unparsed:
        first = report.unparsed[0]
        names = list(dict.fromkeys(row["label"] or row["property"] for row in report.unparsed))
        verb = "counts" if first["all_values"] == 1 else "count"
        text = f"{count(first['all_values'], 'value')} cannot be read and {verb} as empty: {_some(names)}."
        found.append(Notice("look", text, "gaps"))
    return found


def _writeback(report: Report) -> list[Notice]:
    plan = report.plan
    if plan is None:
        return []
    found = []
    if plan["status"] == "held":
        text = f"The write-back of {count(plan['records'], 'record')} is held: {plan['note'] or 'no reason given'}."
        found.append(Notice("act", text, "writeback"))
    failed = sum(row["failed"] for row in report.plan_status)
    if failed:
        found.append(Notice("look", f"{count(failed, 'record')} could not be written back.", "writeback"))
    return found


def reconciles(report: Report) -> bool:
    """Whether the findings, counted from their own dates, give what the check recorded.

    The check counts the findings that it opened and kept; those of rules that could not be run stand beside them.
    """
    run = report.run
    if run is None:
        return True

    def total(*keys: str) -> int:
        return sum(row[key] for row in report.changes for key in keys)

    resolved = total("fixed", "closed", "deleted", "not_applicable", "unknown", "other")
    return total("before") + total("opened") - resolved == total("standing") and total("judged") == run["opened"] + run["kept"]


def _some(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def share(part: Decimal | int | None, all_of_it: Decimal | int | None) -> float | None:
    """part / all, None where there is nothing to divide by."""
    return float(part) / float(all_of_it) if part is not None and all_of_it and all_of_it > 0 else None
