"""The walls of the house: who may import whom. What passes between rooms is data with a name."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEVER = {
    "connectors": {"warehouse", "expectations", "flows"},
    "warehouse": {"connectors", "expectations", "flows"},
    "expectations": {"connectors", "warehouse", "flows"},
}
TRADES = {  # third-party packages that belong to one room
    "duckdb": {"warehouse", "expectations", "connectors/simulator"},
    "great_expectations": {"expectations"},
    "prefect": {"flows"},
    "simple_salesforce": {"connectors/salesforce"},
    "hubspot": {"connectors/hubspot"},
}


def imports(file: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.lineno, node.module))
    return found


def sources(room: str) -> list[Path]:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room}/ holds no Python: has it moved?"
    return files


@pytest.mark.parametrize("room", NEVER)
def test_rooms_do_not_import_each_other(room):
    broken = [
        f"{file.relative_to(ROOT)}:{line} imports {module}"
        for file in sources(room)
        for line, module in imports(file)
        if module.split(".")[0] in NEVER[room]
    ]
    assert broken == []


def test_each_library_stays_in_its_room():
    broken = []
    for room in (*NEVER, "flows"):
        for file in sources(room):
            place = file.relative_to(ROOT).as_posix()
            for line, module in imports(file):
                homes = TRADES.get(module.split(".")[0])
                if homes and not any(place.startswith(home + "/") for home in homes):
                    broken.append(f"{place}:{line} imports {module}")
    assert broken == []


def test_nothing_heavy_is_imported_to_answer_help():
    heavy = ["great_expectations", "prefect", "simple_salesforce", "hubspot", "duckdb", "pandas", "pydantic", "sqlalchemy", "uvicorn"]
    code = f"import sys; import flows.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_help_answers_in_half_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "flows.cli", "--help"], check=True, capture_output=True, cwd=ROOT)
        return time.perf_counter() - start

    # The best of a few tries: the question is what it costs, not how busy the machine is.
    assert min(seconds() for _ in range(5)) < 0.5
