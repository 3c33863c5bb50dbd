"""The report says what the warehouse holds, in every state that a warehouse can be in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
import report_sample as sample

from expectations.report import write_report
from expectations.report.text import whole


class Page(HTMLParser):
    """The page as a reader sees it: sections by id and tables as rows of cell texts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html, self.tags, self.tables, self.sections = html, [], {}, {"": []}
        self._table = self._cell = None
        self._open: list[str] = []
        self._section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self._open.append(tag)
        if tag == "section":
            self._section = values.get("id") or values.get("class") or ""
            self.sections.setdefault(self._section, [])
        elif tag == "table":
            self._table = self.tables.setdefault(values["id"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._cell = []
            self._table[-1] += [self._cell] + [None] * (int(values.get("colspan") or 1) - 1)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop() if self._open and self._open[-1] == tag else None
        if tag == "table":
            self._table = None
        elif tag in ("td", "th"):
            self._cell = None
        elif tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.sections[self._section].append(data)
        if self._cell is not None:
            self._cell.append(data)

    def text(self, section: str) -> str:
        return re.sub(r"\s+", " ", " ".join(self.sections.get(section, []))).strip()

    def rows(self, table: str) -> dict[str, list[str | None]]:
        """Body rows by the text of their first cell."""
        said = [[None if c is None else re.sub(r"\s+", " ", "".join(c)).strip() for c in row] for row in self.tables.get(table, [])[1:]]
        return {row[0] or "": row for row in said}


def page(con: duckdb.DuckDBPyConnection, tmp_path: Path, **more) -> Page:
    options = {"now": sample.NOW, "business_date": sample.BUSINESS_DATE} | more
    path = write_report(con, tmp_path, **options)
    assert path == tmp_path / "index.html"
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    return Page(path.read_text(encoding="utf-8"))


def assert_links_lead_somewhere(shown: Page) -> None:
    anchors = {a["href"][1:] for _, a in shown.tags if (a.get("href") or "").startswith("#")}
    assert anchors <= {a.get("id") for _, a in shown.tags}


def one(con: duckdb.DuckDBPyConnection, sql: str):
    return con.execute(sql).fetchone()


@pytest.fixture(scope="module")
def con():
    return sample.sample()


@pytest.fixture
def own():
    """A sample to spoil."""
    return sample.sample(deals=60, nights=4)


@pytest.fixture(scope="module")
def shown(con, tmp_path_factory) -> Page:
    return page(con, tmp_path_factory.mktemp("report"))


ALERT_FINDINGS = """
    select f.* from quality.finding f join quality.rule r using (rule_id) where f.state = 'open' and r.state = 'alert'
"""


def test_headline_is_the_score_of_the_last_check(con, shown):
    open_, risk, score, deals = one(
        con, "select open_amount_home, at_risk_amount_home, score, deals from quality.score where scope = 'all' order by as_of desc limit 1"
    )
    text = shown.text("headline")
    assert f"Open pipeline EUR {whole(open_)} {deals} deals" in text
    assert f"Trusted EUR {whole(open_ - risk)}" in text
    assert f"At risk EUR {whole(risk)}" in text
    assert f"Score {score} of 100" in text


def test_trusted_and_at_risk_deals_come_from_the_findings(con, shown):
    n = one(
        con,
        f"""
        select count(distinct o.opportunity_key) from core.opportunity o join ({ALERT_FINDINGS}) f using (opportunity_key)
        where not o.is_closed and not o.is_deleted and o.stage_rank between 1 and 4 and f.severity in ('critical', 'high')
        """,
    )[0]
    all_deals = one(con, "select deals from quality.score where scope = 'all' order by as_of desc limit 1")[0]
    assert re.search(rf"At risk .* of the amount, {n} deals", shown.text("headline"))
    assert re.search(rf"of the amount, {all_deals - n} deals", shown.text("headline"))


def test_changes_are_against_the_previous_check_and_a_week_ago(con, shown):
    known = con.execute(
        """
        select business_date, open_amount_home - at_risk_amount_home from quality.score join quality.run using (run_id)
        where scope = 'all' order by 1
        """
    ).fetchall()
    now, previous, week = known[-1], known[-2], next(k for k in known if (sample.BUSINESS_DATE - k[0]).days == 6)
    assert f"{now[1] - previous[1]:+,.0f}".replace("-", "−") + " since 22 Nov 2026" in shown.text("headline")
    assert f"{now[1] - week[1]:+,.0f}".replace("-", "−") + " since 17 Nov 2026" in shown.text("headline")


def test_findings_before_and_after_reconcile(con, shown):
    rows = shown.rows("changes-t")
    for column, state in ((1, "= 'alert'"), (2, "= 'observe'")):
        figure = {k: int(re.sub(r"[^\d]", "", row[column] or "0")) for k, row in rows.items()}
        gone = sum(n for k, n in figure.items() if k.startswith(("Fixed", "Gone")))
        assert figure["Open before"] + figure["Opened"] - gone == figure["Open now"]
        findings = "quality.finding join quality.rule r using (rule_id)"
        standing = one(con, f"select count(*) from {findings} where resolved_at is null and r.state {state}")
        assert figure["Open now"] == standing[0]
    assert "agrees with what the check counted" in shown.text("changes")


def test_a_check_that_does_not_add_up_is_said_first(own, tmp_path):
    own.execute("update quality.run set opened = opened + 1 where as_of = (select max(as_of) from quality.run)")
    shown = page(own, tmp_path)
    assert "do not add up" in shown.text("notices")
    assert "Does not agree with what the check counted" in shown.text("changes")


def test_rules_show_the_results_of_the_run(con, shown):
    rows = shown.rows("rules-t")
    said = con.execute(
        """
        select r.title || r.rule_id, sum(q.applicable), sum(q.evaluable), sum(q.failed), sum(q.failed_amount_home), sum(q.waived)
        from quality.result q join quality.rule r using (rule_id) where as_of = (select max(as_of) from quality.run) group by 1
        """
    ).fetchall()
    assert len(rows) == len(said) == 12
    for name, applicable, evaluable, failed, amount, waived in said:
        row = next(row for key, row in rows.items() if key.startswith(name))
        assert row[3] == whole(applicable)
        if applicable is None:
            assert row[5] == "could not run"
            continue
        if evaluable < applicable / 2:
            assert row[5] == "cannot judge: inbound: contact roles could not be read; sales: contact roles could not be read"
        else:
            assert row[5] == whole(failed)
            assert row[7] == whole(amount)
        assert row[10] == whole(waived)
    assert "process gap" in next(key for key in shown.rows("rules-t") if "next_step_empty" in key)
    assert "could not run" in next(key for key in shown.rows("rules-t") if "deal_over_aged" in key)


def test_owners_under_five_deals_are_not_compared(con, shown):
    rows = list(shown.rows("owners-t").values())
    last = "as_of = (select max(as_of) from quality.run)"
    assert len(rows) == one(con, f"select count(*) from quality.score where scope = 'owner' and {last}")[0]
    few = [int(row[1]) < 5 for row in rows]
    assert any(few)
    assert few == sorted(few)
    assert all((row[6] == "too few") is small for row, small in zip(rows, few, strict=True))
    risk = [int(row[3].replace(",", "")) for row, small in zip(rows, few, strict=True) if not small]
    assert risk == sorted(risk, reverse=True)


def test_top_deals_are_ordered_by_amount_times_points(con, shown):
    expected = con.execute(
        f"""
        with points as (
            select opportunity_key, sum(p) as points from (
                select opportunity_key, grp, max(case f.severity when 'critical' then 30 when 'high' then 15 when 'medium'
                    then 8 when 'low' then 3
                    else 0 end) as p
                from ({ALERT_FINDINGS}) f join quality.rule using (rule_id) group by all)
            group by all
        )
        select name from core.opportunity join points using (opportunity_key) where not is_closed and not is_deleted
        order by coalesce(nullif(amount_home, 0), (select median(amount_home) from core.opportunity
            where not is_closed and not is_deleted and amount_home > 0)) * points desc, points desc, opportunity_key limit 25
        """
    ).fetchall()
    names = re.findall(r'<div class="who"><h3>.*?<bdi>(.*?)</bdi>', shown.html, re.DOTALL)
    assert len(names) == 25
    assert names == [name for (name,) in expected]
    worst = one(con, f"select message from ({ALERT_FINDINGS}) join core.opportunity using (opportunity_key) where name = '{names[0]}'")[0]
    assert worst in shown.text("deals")


def test_stages_and_calendar_hold_every_open_deal(con, shown):
    open_deals = "from core.opportunity where not is_closed and not is_deleted"
    deals, amount = one(con, f"select count(*), sum(amount_home) {open_deals}")
    stages, months = shown.rows("stages-t"), shown.rows("calendar-t")
    assert stages.pop("All open deals")[2:4] == [whole(deals), whole(amount)]
    for rows in (stages, months):
        assert sum(int(row[2].replace(",", "")) for row in rows.values()) == deals
        assert sum(Decimal(row[3].replace(",", "")) for row in rows.values()) == amount
    past = one(con, f"select count(*) {open_deals} and close_date < '{sample.BUSINESS_DATE}'")[0]
    assert sum(int(row[2]) for name, row in months.items() if "past due" in name) == past
    assert list(months)[:3] == ["More than 90 days past due", "31 to 90 days past due", "1 to 30 days past due"]
    assert list(months)[3:5] == ["November 2026, from today", "December 2026"]
    assert "not in the headline" in next(key for key in stages if key.startswith("Unmapped"))


def test_gaps_are_counted_aloud(con, shown):
    where = "where not is_closed and not is_deleted"
    text = shown.text("gaps")
    for condition, words in (
        ("amount is null", "open deals without an amount"),
        ("amount is not null and amount_home is null", "open deals without an exchange rate"),
        ("activity_capability = 'none'", "open deals whose activities could not be read"),
    ):
        n = one(con, f"select count(*) from core.opportunity {where} and {condition}")[0]
        assert n > 1
        assert f"{n} {words}" in text
    unmapped = con.execute(
        f"select crm_stage_label, count(*), sum(amount_home) from core.opportunity {where} and stage = 'unmapped' group by 1"
    ).fetchall()
    assert unmapped
    for label, deals, amount in unmapped:
        row = next(row for key, row in shown.rows("unmapped-t").items() if key.startswith(label))
        assert row[2:4] == [whole(deals), whole(amount)]
    assert "Renewal_Risk__c" in text


def test_values_that_cannot_be_read_are_told_by_field_and_not_by_value(con, own, shown, tmp_path):
    told = shown.rows("unparsed-t")
    example, day = one(con, "select min(record_id), min(first_seen_at) from core.unparsed_value where source = 'inbound'")
    assert [(key, row[1:4]) for key, row in told.items()] == [
        ("seatsdeals.seats, inbound", ["a number", "3", example]),
        ("seatsOpportunity.seats, sales", ["a number", "1", one(con, "select record_id from core.unparsed_value where source = 'sales'")[0]]),
    ]
    assert all(row[4].startswith(f"{day:%-d %b %Y}") for row in told.values())
    assert "4 values cannot be read and count as empty: seats." in shown.text("notices")
    own.execute("delete from core.unparsed_value")
    assert "cannot be read and" not in page(own, tmp_path).text("notices") and "Values that cannot" not in page(own, tmp_path).text("gaps")


def test_what_could_not_be_judged_and_what_that_hangs_on(con, shown):
    assert "activities are not synced" in shown.text("unjudged")
    _, rules, since, deals, source = shown.rows("unreadable-t")["BeschreibungOpportunity.Description"]
    run = "as_of = (select max(as_of) from quality.run)"
    counts = "select applicable, evaluable from quality.result where rule_id = 'exit_qualified' and source = 'sales'"
    applicable, evaluable = one(con, f"{counts} and {run}")
    assert f"exit_qualified: {applicable - evaluable} of {applicable} not judged" in rules
    assert since.startswith("20 Nov 2026")
    open_deals = one(con, "select count(*) from core.opportunity where source = 'sales' and not is_closed and not is_deleted")[0]
    assert (deals, source) == (whole(open_deals), "sales")
    roles = shown.rows("unreadable-t")["OpportunityContactRolethe whole object"]
    assert "no_contact" in roles[1]
    assert "single_threaded" in roles[1]
    assert roles[2].startswith("10 Nov 2026")  # never read
    assert "sales does not show Description, OpportunityContactRole: 2 rules cannot judge all of its deals." in shown.text("notices")


def test_the_sync_shows_each_object_and_the_source_that_failed(con, shown):
    sources = shown.rows("sources-t")
    assert sources["inbound"][2].startswith("failed")
    assert "crm.objects.deals.read" in sources["inbound"][2]
    assert sources["sales"][2] == "done"
    assert "last sync of inbound failed" in shown.text("notices")
    row = next(row for key, row in shown.rows("objects-t").items() if key.startswith("Opportunitysales"))
    fetched = one(
        con,
        """
        select fetched, inserted, changed, unchanged, echoed, deleted, calls from ops.sync_object where object = 'Opportunity'
        order by run_id desc
        """,
    )
    assert [row[2], *row[4:10]] == [whole(n) for n in fetched]


def test_write_back_counts_records_and_reasons(con, shown):
    for source, records, written, failed in con.execute(
        """
        select source, count(distinct opportunity_id), count(distinct opportunity_id) filter (status = 'written'),
            count(distinct opportunity_id) filter (status = 'failed') from ops.writeback_change group by 1
        """
    ).fetchall():
        row = shown.rows("plan-t")[source]
        assert (row[1], row[3], row[5]) == (str(records), str(written), str(failed))
    codes = con.execute("select distinct error_code from ops.writeback_change where error_code is not null").fetchall()
    assert codes
    assert set(shown.rows("errors-t")) == {code for (code,) in codes}


def test_findings_table_is_limited_and_says_how_many_more(tmp_path):
    con = sample.sample(deals=700, nights=2)
    shown = page(con, tmp_path)
    n = one(con, "select count(*) from quality.finding where state <> 'resolved'")[0]
    assert n > 500
    assert len(shown.tables["findings-t"]) == 501
    assert f"{n - 500:,} more findings" in shown.text("findings")
    con.execute((sample.TABLES.parent / "views" / "bi" / "finding.sql").read_text())
    copied = re.search(r"copy \((.*?)\) to 'findings.csv'", shown.text("findings"))
    assert copied
    assert len(con.execute(copied[1]).fetchall()) == n


def test_times_are_in_the_business_zone(con, shown, tmp_path):
    assert "checked 23 Nov 2026, 06:00" in shown.text("")
    assert "times in Europe/Berlin" in shown.text("")
    elsewhere = page(con, tmp_path, timezone="America/Denver", currency="USD", title="Q4 hygiene")
    assert "checked 22 Nov 2026, 22:00" in elsewhere.text("")
    assert "USD" in elsewhere.text("headline")
    assert "<title>Q4 hygiene, 23 Nov 2026</title>" in elsewhere.html


def test_an_earlier_now_shows_what_stood_then(con, tmp_path):
    run = one(con, "select as_of, business_date from quality.run order by as_of offset 5 limit 1")
    shown = page(con, tmp_path, now=run[0].astimezone(UTC) + timedelta(minutes=5), business_date=run[1])
    score, open_ = one(con, f"select score, open_amount_home from quality.score where scope = 'all' and as_of = '{run[0]}'")
    assert f"EUR {whole(open_)}" in shown.text("headline")
    assert f"Score {score}" in shown.text("headline")
    assert "agrees with what the check counted" in shown.text("changes")
    standing = one(
        con,
        f"select count(*) from quality.finding where first_seen_at <= '{run[0]}' and coalesce(resolved_at > '{run[0]}', true)",
    )[0]
    assert len(shown.tables["findings-t"]) == standing + 1


def test_empty_warehouse(tmp_path):
    shown = page(sample.empty(duckdb.connect()), tmp_path)
    assert "No opportunities yet" in shown.html
    assert "plumbline sync" in shown.html
    assert "No source has been synced yet" in shown.text("sync")
    assert_links_lead_somewhere(shown)
    assert "None" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", shown.html, flags=re.DOTALL)


def test_synced_but_never_checked(tmp_path):
    con = sample.fill(sample.empty(duckdb.connect()), deals=40, nights=1, checked=False)
    shown = page(con, tmp_path)
    assert "No check has run yet" in shown.text("headline")
    assert one(con, "select count(*) from core.opportunity where not is_closed and not is_deleted")[0] > 30
    assert shown.rows("stages-t")
    assert not {"changes", "deals", "rules", "owners", "findings"} & shown.sections.keys()
    assert "None" not in shown.text("stages") + shown.text("gaps") + shown.text("headline")
    assert_links_lead_somewhere(shown)


def test_first_check(tmp_path):
    shown = page(sample.sample(deals=60, nights=1), tmp_path)
    assert "First check" in shown.text("changes")
    assert "No history yet" in shown.text("trend")
    assert "since" not in shown.text("headline")


def test_no_findings_at_all(own, tmp_path):
    own.execute("delete from quality.finding")
    own.execute("update quality.run set opened = 0, kept = 0, resolved = 0")
    own.execute("update quality.result set failed = 0, waived = 0, failed_amount_home = 0, error = null")
    shown = page(own, tmp_path)
    assert "No findings, before or now" in shown.text("changes")
    assert "No alert finding stands against any open deal" in shown.text("deals")
    assert "No finding stands" in shown.text("findings")


def test_nothing_needs_an_admin(own, tmp_path):
    own.execute("update ops.sync_run set status = 'done', error = null")
    own.execute("update quality.result set error = null, evaluable = applicable, failed = 0")
    own.execute("delete from quality.finding where rule_id = 'deal_over_aged'")  # whose error has just gone
    own.execute("update core.opportunity set stage = 'proposal' where stage = 'unmapped'")
    own.execute("update core.opportunity set amount_home = amount where amount_home is null")
    own.execute("delete from core.unparsed_value")
    own.execute("delete from ops.writeback_change where status = 'failed'")
    assert "Nothing needs an admin today" in page(own, tmp_path).html


def test_one_source_only(own, tmp_path):
    for table in ("core.opportunity", "core.owner", "core.source", "core.stage_map", "ops.sync_run", "ops.sync_object", "quality.result"):
        own.execute(f"delete from {table} where source = 'inbound'")
    shown = page(own, tmp_path)
    assert list(shown.rows("sources-t")) == ["sales"]
    assert "inbound" not in shown.text("deals") + shown.text("owners") + shown.text("")


def test_nothing_in_the_home_currency(own, tmp_path):
    own.execute("update core.opportunity set amount_home = null, fx_rate = null, currency = 'SEK'")
    own.execute("update quality.score set open_amount_home = null, at_risk_amount_home = null")
    shown = page(own, tmp_path)
    deals = one(own, "select deals from quality.score where scope = 'all' order by as_of desc limit 1")[0]
    assert f"Open pipeline {deals} deals" in shown.text("headline")
    assert "no amount in EUR" in shown.text("headline")
    assert "There is no amount in EUR to draw" in shown.text("trend")
    assert "SEK" in shown.text("gaps")
    assert "the bars count deals" in shown.text("stages")


def test_another_rule_set_is_not_compared(own, tmp_path):
    own.execute("update quality.run set rule_set_version = 'old' where as_of < (select max(as_of) from quality.run)")
    shown = page(own, tmp_path)
    assert "not comparable: rule set was old" in shown.text("headline")
    assert not re.search(r"judged .\d", shown.text("headline"))
    assert 'class="break"' in shown.html


def test_a_check_and_a_sync_that_are_late(own, tmp_path):
    late = sample.NOW + timedelta(days=3)
    text = page(own, tmp_path, now=late, business_date=late.date()).text("notices")
    assert "The last check is from 23 Nov 2026, 06:00" in text
    assert "sales was last synced 3 days ago" in text


def test_read_only_is_enough_and_nothing_stays(tmp_path):
    file = tmp_path / "w.duckdb"
    with duckdb.connect(str(file)) as con:
        sample.fill(sample.empty(con), deals=30, nights=2)
    with duckdb.connect(str(file), read_only=True) as con:
        page(con, tmp_path / "out")
        assert not con.execute("select table_name from duckdb_tables() where table_name like 'report%'").fetchall()


def test_a_naive_now_is_refused(con, tmp_path):
    with pytest.raises(ValueError, match="aware"):
        write_report(con, tmp_path, now=datetime(2026, 11, 23), business_date=sample.BUSINESS_DATE)
    assert not list(tmp_path.iterdir())


def test_after_a_real_check(tmp_path):
    """The check's own tables, two nights: figures agree with what it returns, and what changed adds up."""
    from expectations.check import check

    con = sample.fill(sample.empty(duckdb.connect()), deals=80, nights=2, checked=False)
    for night, change in ((1, None), (0, "update core.opportunity set close_date = close_date + 400 where hash(opportunity_id) % 3 = 0")):
        now = sample.NOW - timedelta(days=night)
        if change:
            con.execute(change)
        result = check(
            con, run_id=f"run-{2 - night}", now=now, business_date=sample.BUSINESS_DATE - timedelta(days=night), timezone=sample.ZONE
        )
    assert not result.errors
    assert result.resolved > 0
    shown = page(con, tmp_path)
    text = shown.text("headline")
    assert f"EUR {whole(result.open_amount_home)}" in text
    assert f"At risk EUR {whole(result.at_risk_amount_home)}" in text
    assert f"Score {result.score:.1f}" in text
    assert "agrees with what the check counted" in shown.text("changes")
    assert shown.rows("stages-t")["All open deals"][5] == whole(result.at_risk_amount_home)
    rows = shown.rows("rules-t")
    for rule in result.results:
        row = next(row for key, row in rows.items() if rule.rule_id in key)
        assert row[3] == whole(rule.applicable)
        if rule.applicable == 0 or rule.evaluable >= rule.applicable / 2:
            assert row[5] == whole(rule.failed)
    # The same instant again: nothing opens, and the page is not alarmed by it.
    check(con, run_id="run-3", now=sample.NOW, business_date=sample.BUSINESS_DATE, timezone=sample.ZONE)
    assert "agrees with what the check counted" in page(con, tmp_path).text("changes")


@pytest.mark.slow
def test_a_hundred_thousand_deals(tmp_path):
    con = sample.sample(deals=100_000, nights=30)
    started = datetime.now(UTC)
    page(con, tmp_path)
    assert (datetime.now(UTC) - started).total_seconds() < 10
    assert (tmp_path / "index.html").stat().st_size < 3_000_000
