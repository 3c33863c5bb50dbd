"""The commands after a first night, as an admin uses them; and the SQL of the documentation, as a BI tool runs it."""

import csv
import json
import re
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from company import NIGHT_1, _environment, company, configuration
from typer.testing import CliRunner

from flows.cli import app
from flows.errors import exit_code

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(sql, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, sql in enumerate(re.findall(r"```sql\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL), 1)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands")
    with company(salesforce_deals=150, hubspot_deals=100) as sim, _environment(sim):
        file = configuration(directory, sim)
        file.write_text(file.read_text(encoding="utf-8").replace('mode = "apply"', 'mode = "plan"'), encoding="utf-8")
        plumbline(file, "nightly")
        yield file


def plumbline(file, *words, now=NIGHT_1):
    """Run a command in this process; its exit code has to be 0. Returns what it printed on stdout."""
    done = CliRunner().invoke(app, ["--config", str(file), "--now", now.isoformat(), *map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def stages(file, label):
    rows = json.loads(plumbline(file, "--json", "stages", "list"))["stages"]
    return {row["pipeline"]: (row["stage"], row["origin"]) for row in rows if row["label"] == label}


def test_unmapped_stages_come_first_and_a_suggestion_says_why(file):
    assert plumbline(file, "stages", "list").splitlines()[0].split()[-5] == "unmapped"
    suggestions = plumbline(file, "stages", "suggest").splitlines()
    assert "Lighthouse" in suggestions[0]
    assert "by its place and probability only" in suggestions[0]


def test_a_stage_is_confirmed_by_label_in_every_pipeline_or_in_one_and_stays_so(file):
    assert list(stages(file, "Orbit Check")) == ["Partner"]  # the other record types' sales processes do not have it
    said = plumbline(file, "stages", "confirm", "sales", "Orbit Check", "discovery")
    assert "'Orbit Check' of sales (Partner) now stands for discovery: 1 deals restated." in said
    said = plumbline(file, "stages", "confirm", "sales", "Needs Analysis", "qualified")
    assert "'Needs Analysis' of sales (Expansion, New Business, Partner) now stands for qualified" in said
    one = json.loads(plumbline(file, "--json", "stages", "confirm", "sales", "needs analysis", "proposal", "--pipeline", "Partner"))
    assert one["pipelines"] == ["Partner"]
    plumbline(file, "sync", "--full")
    assert stages(file, "Orbit Check") == {"Partner": ("discovery", "confirmed")}
    assert stages(file, "Needs Analysis") == {
        "Expansion": ("qualified", "confirmed"),
        "New Business": ("qualified", "confirmed"),
        "Partner": ("proposal", "confirmed"),
    }


def test_a_plan_as_a_table_to_open_in_a_spreadsheet(file):
    plan = json.loads(plumbline(file, "--json", "writeback", "plan"))
    place = file.parent / "plans/of today.csv"
    plumbline(file, "writeback", "show", "--csv", place)
    with place.open(encoding="utf-8", newline="") as rows:
        table = list(csv.DictReader(rows))
    assert len(table) == plan["changes"]
    assert {"source", "opportunity_id", "field", "old_value", "new_value", "status"} <= set(table[0])


@pytest.mark.parametrize(
    "words",
    [["sync", "sales"], ["snapshot"], ["report"], ["publish"], ["stages", "suggest"], ["writeback", "plan"], ["writeback", "show"]],
    ids=" ".join,
)
def test_json_is_one_document(file, words):
    assert isinstance(json.loads(plumbline(file, "--json", *words)), dict)


def test_every_line_of_progress_says_which_source_it_is_about(file):
    lines = plumbline(file, "sync", "--full").splitlines()
    assert {line.split(":")[0] for line in lines} == {"sales", "inbound"}
    assert "inbound: pulling everything from HubSpot …" in lines


def test_quiet_says_results_only_and_verbose_tells_every_object(file):
    later = NIGHT_1 + timedelta(minutes=5)
    quiet = plumbline(file, "-q", "sync", now=later).splitlines()
    assert [line.split(":")[0] for line in quiet] == ["sales", "inbound"]
    assert "  OpportunityContactRole (incremental): " in plumbline(file, "-v", "-q", "sync", now=later)


@pytest.mark.parametrize("sql", EXAMPLES)
def test_the_sql_of_the_documentation_runs_on_the_published_file(file, sql):
    with duckdb.connect(str(file.parent / "published/plumbline.duckdb"), read_only=True) as con:
        for statement in con.extract_statements(sql):
            assert con.execute(statement).description


def test_the_record_of_a_run_keeps_what_it_reported(file):
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True) as con:
        found = con.execute("select detail from ops.sync_run where command = 'nightly' and source is null").fetchone()
    told = json.loads(found[0])
    assert told["findings"]["opened"] > 0
    assert told["snapshot"]["deals"] > 0


def test_past_days_are_rebuilt_from_history_and_todays_is_taken(file):
    today = date.fromisoformat(json.loads(plumbline(file, "--json", "snapshot"))["snapshot_date"])  # in the business time zone
    said = plumbline(file, "snapshot", "--since", today - timedelta(days=60)).splitlines()
    assert said[0] == "60 past days rebuilt from history."
    assert said[1].startswith(f"Snapshot of {today}: ")
    one = json.loads(plumbline(file, "--json", "snapshot", "--date", today - timedelta(days=300)))
    assert (one["snapshot_date"], one["rebuilt"]) == (str(today - timedelta(days=300)), 1)
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True) as con:
        days = dict(con.execute("select snapshot_date, any_value(is_rebuilt) from bi.pipeline_snapshot group by 1").fetchall())
    assert len(days) == 62
    assert days.pop(today) is False
    assert all(days.values())


@pytest.mark.parametrize("words", ["--date 2099-01-01", "--since 2099-01-01", "--date 2026-01-01 --since 2026-01-01", "--date x"])
def test_a_day_to_come_has_no_snapshot(file, words):
    done = CliRunner().invoke(app, ["--config", str(file), "--now", NIGHT_1.isoformat(), "snapshot", *words.split()])
    assert done.exit_code == 2 or exit_code(done.exception) == 2
