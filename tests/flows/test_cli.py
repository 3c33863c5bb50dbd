"""The face of the program: what a scheduler and a person at a terminal hold on to."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]


def plumbline(*args, cwd=ROOT, **environment):
    """Run the command as a user does. Returns the finished process."""
    import os

    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PLUMBLINE_"))}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("page", ["cli.md", "data-dictionary.md"])
def test_written_pages_say_what_the_code_says(page):
    """The data dictionary names every column: one without a comment fails here."""
    from flows.reference import DOCS, PAGES

    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), "run `make docs`"


COMMANDS = "demo doctor sync reconcile check snapshot report publish nightly stages writeback simulator"


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_explains_itself(command):
    done = plumbline(command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_a_command_nobody_knows_is_a_usage_error():
    done = plumbline("synch")
    assert done.returncode == 2
    assert "synch" in done.stderr


def test_an_instant_without_a_zone_is_refused_with_an_example():
    done = plumbline("--now", "2026-03-31T02:00:00", "sync")
    assert done.returncode == 2
    assert "has no time zone" in done.stderr


def test_no_configuration_is_a_plain_message_and_no_traceback(tmp_path):
    done = plumbline("sync", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("There is no configuration file plumbline.toml.")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_one_json_document_when_that_was_asked_for(tmp_path):
    done = plumbline("--json", "sync", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2


def test_an_unknown_source_is_told_before_anything_is_opened(tmp_path):
    (tmp_path / "plumbline.toml").write_text('[sources.sales]\ncrm = "hubspot"\naccess_token = "x"\n', encoding="utf-8")
    done = plumbline("sync", "sails", cwd=tmp_path)
    assert done.returncode == 2
    assert "No source is called 'sails'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_demo_never_empties_a_directory_that_is_not_its_own(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work", encoding="utf-8")
    done = plumbline("demo", "--dir", tmp_path)
    assert done.returncode == 2
    assert "no demo made it" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(("words", "code"), [(["report", "--out", "diary/report"], 2), (["publish"], 4)], ids=["report", "publish"])
def test_a_place_that_cannot_be_written_is_named_and_is_no_defect(tmp_path, words, code):
    (tmp_path / "diary").write_text("a file, not a directory", encoding="utf-8")
    (tmp_path / "plumbline.toml").write_text('[warehouse]\npublished = "diary/published.duckdb"\n', encoding="utf-8")
    done = plumbline(*words, cwd=tmp_path)
    assert done.returncode == code
    assert "diary" in done.stderr
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_in_the_targets_is_named_and_stops_no_run(tmp_path):
    (tmp_path / "plumbline.toml").write_text('[metrics]\ntargets = "plan/targets.csv"\n', encoding="utf-8")
    (tmp_path / "plan").mkdir()
    file = tmp_path / "plan" / "targets.csv"
    file.write_text("period_start,period_end,amount_home\n2026-10-01,2026-12-31,5\n", encoding="utf-8")
    assert plumbline("publish", cwd=tmp_path).stderr == ""
    file.write_text("period_start,period_end,amount_home\n2026-10-01,2026-12-31,five\n", encoding="utf-8")
    done = plumbline("publish", cwd=tmp_path)
    assert done.returncode == 0
    assert "targets.csv: line 2, amount_home: five is not an amount like" in done.stderr
    with duckdb.connect(str(tmp_path / "data" / "published" / "plumbline.duckdb"), read_only=True) as con:
        assert con.execute("select measure, amount_home from core.target").fetchall() == [("won", 5)]
