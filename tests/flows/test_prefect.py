"""With Prefect at hand: steps are recorded, a failed source is a red run, and a deployed schedule really schedules."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import requests

from flows import demo, steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_api(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))


def test_without_an_api_a_flow_is_a_plain_call_that_does_not_import_prefect(no_api):
    code = (
        "import sys; from flows.steps import recorded, step; double = step('double')(lambda x: 2 * x);"
        "print(recorded('n', {}, lambda: double(21), print), 'prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["42", "False"]


def test_the_api_is_found_in_the_environment_and_in_the_active_profile(no_api, monkeypatch, tmp_path):
    assert steps.prefect_api() is None
    (tmp_path / "profiles.toml").write_text('active = "ops"\n[profiles.ops]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n')
    assert steps.prefect_api() == "http://127.0.0.1:4200/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4201/api")
    assert steps.prefect_api() == "http://127.0.0.1:4201/api"


def test_an_api_that_does_not_answer_costs_a_warning_and_not_the_run(no_api, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{demo._free_port()}/api")
    warnings = []
    assert steps.recorded("nightly", {}, lambda: "ran", warnings.append) == "ran"
    assert "does not answer" in warnings[0]


def test_sources_run_at_once_and_one_failure_does_not_stop_the_others():
    def wait(name):
        time.sleep(0.3)
        return name

    def fail():
        raise ValueError("refused")

    start = time.perf_counter()
    first, second, third = steps.together([partial(wait, "a"), fail, partial(wait, "b")])
    assert (first, str(second), third) == ("a", "refused", "b")
    assert time.perf_counter() - start < 0.55


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server of our own, as the demo starts it."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PREFECT_")}
    directory = tmp_path_factory.mktemp("prefect")
    os.environ["PREFECT_HOME"] = str(directory)
    with demo._prefect_server(directory, print) as ui:
        demo._await_prefect(ui, print, pytest.fail)
        yield ui
    os.environ.update(before)


def runs(server, kind, **query):
    answer = requests.post(f"{server}/api/{kind}/filter", json=query, timeout=10)
    answer.raise_for_status()
    return answer.json()


def eventually(check, seconds=30):
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


class Red:
    def raise_failures(self):
        raise ValueError("the CRM refused")


@pytest.mark.slow
def test_a_command_is_a_flow_run_with_its_steps_and_a_failed_source_makes_it_red(server):
    pull = steps.step("pull")(lambda source: source)

    def body():
        assert steps.together([partial(pull, 1), partial(pull, 2)]) == [1, 2]
        return Red()

    result = steps.recorded("night of the test", {"config": "c", "now": "n", "options": {}}, body, pytest.fail)
    assert isinstance(result, Red)
    (run,) = [r for r in runs(server, "flow_runs") if r["name"] == "night of the test"]
    assert run["state_type"] == "FAILED"
    assert run["parameters"] == {"config": "c", "now": "n", "options": {}}
    tasks = eventually(lambda: [t for t in runs(server, "task_runs") if t["flow_run_id"] == run["id"] and t["state_type"] == "COMPLETED"])
    assert {t["name"] for t in tasks} == {"pull"}


@pytest.mark.slow
def test_the_schedule_of_prefect_yaml_yields_scheduled_runs(server):
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    environment = {**os.environ, "PREFECT_API_URL": f"{server}/api", "PLUMBLINE_HOME": str(ROOT)}

    def run(command):
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run([*prefect, "work-pool", "create", "plumbline", "--type", "process"])
    run([*prefect, "deploy", "--all"])
    assert {d["name"] for d in runs(server, "deployments")} == {"every-night", "every-week", "by-hand"}
    scheduled = eventually(lambda: [r for r in runs(server, "flow_runs") if r["state_type"] == "SCHEDULED" and r["deployment_id"]], 90)
    assert scheduled, "the scheduler never inserted a run: Prefect and SQLAlchemy do not fit together"
    assert scheduled[0]["parameters"] == {"config": "plumbline.toml"}
