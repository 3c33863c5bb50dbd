"""The page needs nothing from elsewhere, runs nothing that a CRM holds, and can be read by everyone."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import report_sample as sample

from expectations.report import charts, text, write_report
from expectations.report.page import TEMPLATES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ADDRESSES = {"href", "src", "srcset", "action", "formaction", "data", "poster", "xlink:href", "background", "ping", "cite", "manifest"}


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    con = sample.sample()
    # Every text that a CRM delivers, hostile: names, labels, messages, errors, ids.
    for table, columns in {
        "core.opportunity": ("name", "account_name", "owner_name", "pipeline", "crm_stage_label", "currency"),
        "core.owner": ("name", "team"),
        "core.stage_map": ("pipeline", "label", "suggestion", "reason"),
        "core.field": ("name", "label", "type"),
        "core.field_lost": ("label",),
        "quality.finding": ("message",),
        "quality.rule": ("title", "fix", "description"),
        "quality.result": ("unknown_reason", "error"),
        "quality.waiver": ("reason", "author", "scope_key"),
        "quality.run": ("rule_set_version",),
        "ops.sync_run": ("error",),
        "ops.sync_object": ("notice",),
        "ops.writeback_plan": ("note",),
        "ops.writeback_change": ("error", "error_code"),
    }.items():  # fmt: skip
        for i, column in enumerate(columns):
            con.execute(f"update {table} set {column} = $h || {column} where {column} is not null", {"h": sample.HOSTILE[i % 4]})
    con.execute("update core.opportunity set url = 'javascript:alert(1)' where hash(opportunity_id) % 5 = 0")
    con.execute("update core.opportunity set url = 'https://x.example/\"><script>alert(1)</script>' where hash(opportunity_id) % 5 = 1")
    out = tmp_path_factory.mktemp("hostile")
    return write_report(con, out, now=sample.NOW, business_date=sample.BUSINESS_DATE, title=sample.HOSTILE[0])


@pytest.fixture(scope="module")
def html(path) -> str:
    return path.read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere(html):
    links = 0
    for tag, attributes in Elements(html).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "image", "audio", "video", "source")
        for name in ADDRESSES & attributes.keys():
            value = attributes[name] or ""
            if tag == "a" and not value.startswith("#"):
                assert re.match(r"https?://", value)
                links += 1
            else:
                assert value.startswith("#")
    assert links > 10
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "@import" not in style[1]
    assert set(re.findall(r"url\((.*?)\)", html)) == {"#hatch"}


def test_what_a_crm_holds_stays_text(html):
    page = Elements(html)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on") or a == "style"]
    assert "javascript:" not in " ".join(attributes.get("href") or "" for _, attributes in page.elements)
    words = "".join(page.words)
    for hostile in sample.HOSTILE:
        assert hostile in words
    assert "{{ 7*7 }}" in words


def test_the_policy_allows_our_own_style_and_script_alone(html):
    policy = next(a["content"] for tag, a in Elements(html).elements if a.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        source = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert source
        digest = base64.b64encode(hashlib.sha256(source[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_hostile_runs_in_a_browser(path, tmp_path):
    said = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    root = re.search(r"<html[^>]*>", said.stdout)
    assert root
    assert 'class="js"' in root[0]  # our own script ran, so scripts do run here
    assert "pwned" not in root[0]


def test_tables_and_charts_name_themselves(html):
    page = Elements(html)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 8
    assert all(a.get("scope") in ("col", "row") for tag, a in page.elements if tag == "th")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.elements if tag == "svg")
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in page.elements if (a.get("href") or "").startswith("#")} <= set(ids)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_contrast_is_enough(theme):
    css = (TEMPLATES / "report.css").read_text()
    starts = {"light": ":root {", "dark": ':root[data-theme="dark"] {', "print": ":root, :root[data-theme] {"}
    block = css[css.index(starts[theme]) :]
    colour = dict(re.findall(r"--(\w+): (#\w+);", block[: block.index("}")]))

    def luminance(name: str) -> float:
        digits = colour[name][1:]
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def ratio(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "soft", "link", "bad", "better", "critical", "high", "medium", "low", "info"):
        for ground in ("paper", "raised"):
            assert ratio(name, ground) >= 4.5, (name, ground)
    for mark in ("good", "risk"):
        assert ratio(mark, "paper") >= 2.4, mark  # beside a figure and, at risk, a hatch: no mark is read by its colour alone


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "JavaScript:alert(1)", "java\nscript:alert(1)", " https://a.example", "data:text/html,x",
     "//a.example/x", "/x", "https://", "ftp://a.example", "vbscript:x", "https://[bad", "", None],
)  # fmt: skip
def test_addresses_that_are_no_links(address):
    assert text.safe_url(address) is None


def test_addresses_that_are_links():
    for address in ("https://acme.my.salesforce.com/006xx", "http://127.0.0.1:8080/deal/1?a=b#c"):
        assert text.safe_url(address) == address


def test_how_values_read():
    assert [text.whole(v) for v in (None, 0, Decimal("-1234567.5"), 999)] == ["–", "0", "−1,234,568", "999"]
    assert [text.percent(v) for v in (None, 0, 0.001, 0.5, 0.999, 1)] == ["–", "0 %", "<1 %", "50 %", ">99 %", "100 %"]
    assert [text.signed(v) for v in (Decimal("0.2"), -3000, 12)] == ["±0", "−3,000", "+12"]
    assert text.signed(Decimal("-0.44"), 1) == "−0.4"
    assert text.day(date(2026, 3, 1)) == "1 Mar 2026"
    now = datetime(2026, 11, 23, 5, tzinfo=UTC)
    ages = [timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=90), timedelta(hours=47), timedelta(days=2)]
    assert [text.ago(now - age, now) for age in ages] == ["just now", "1 minute ago", "90 minutes ago", "47 hours ago", "2 days ago"]
    assert text.count(1, "opportunity", "opportunities") == "1 opportunity"
    assert text.count(2000, "deal") == "2,000 deals"


def test_axes_are_round_and_hold_the_data():
    for top in (0.7, 3, 14, 999, 1001, 7_022_254, 2.5e9):
        marks = charts.ticks(top)
        assert marks[0] == 0
        assert marks[-1] >= top * 0.999
        assert 4 <= len(marks) <= 8
    assert charts.ticks(0) == [0]
    assert [charts.compact(v) for v in (0, 250_000, 1.5e6, 2e9)] == ["0", "250 k", "1.5 M", "2 bn"]


def test_charts_stay_inside_their_box():
    day = date(2026, 1, 1)
    trend = [
        {"business_date": day + timedelta(days=3 * i), "open_amount": Decimal(1000 * i), "trusted_amount": Decimal(400 * i),
         "at_risk_amount": Decimal(600 * i), "opened": i, "resolved": 30 - i, "score": 80,
         "rule_set_version": "a" if i < 9 else "b", "is_break": i == 9}
        for i in range(30)
    ]  # fmt: skip
    area, bars = charts.trusted_and_at_risk(trend), charts.opened_and_resolved(trend)
    assert area
    assert bars
    for points in (area.lower, area.upper, area.top):
        for point in points.split():
            x, y = (float(v) for v in point.split(","))
            assert area.left <= x <= area.width
            assert 0 <= y <= area.base
    assert len(area.breaks) == 1
    for x, width, y, height, _ in bars.up + bars.down:
        assert bars.left <= x <= x + width <= bars.width
        assert y >= 0
        assert y + height <= bars.height
    assert charts.trusted_and_at_risk(trend[:1]) is None
    assert charts.opened_and_resolved(trend[:2]) is None
