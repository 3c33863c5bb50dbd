"""Pages under docs/ that are written from the code itself, with `make docs`: cli.md from the commands, data-dictionary.md from the comments
of the published file.

A test keeps both current.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLI_HEAD = """\
# The command line

Written by `make docs` from the commands' own help; do not edit.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | the gate that was asked for failed (`check --fail-on`), or CRM and warehouse differed (`reconcile`) |
| 2 | usage or configuration |
| 3 | a CRM refused or failed: credentials, permission, quota, network after retries. The other sources still finish |
| 4 | the warehouse: locked, newer, damaged |

Errors are one or two plain lines on stderr: what happened, where, what to do; `-v` adds the traceback. 70 is a defect of Plumbline.

"""
DATA_HEAD = """\
# Data dictionary

Written by `make docs` from the comments that the published file carries; do not edit. In the file itself `duckdb_tables()`, `duckdb_columns()`,
`duckdb_views()` and `duckdb_functions()` have them in their column `comment`. Money is DECIMAL, instants are TIMESTAMP WITH TIME ZONE, days are those
of the business's time zone. [bi.md](bi.md) says which to begin with, [history.md](history.md) how to ask about the past.
"""
SCHEMA_TITLES = {
    "bi": "for BI tools: wide views, metrics and macros",
    "core": "deals and what is around them, one shape for every CRM",
    "quality": "rules, findings and scores",
    "ops": "the record of runs",
}


def command_line() -> str:
    """The reference of every command and option, as Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from flows.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="plumbline")
    pages = get_docs_for_click(obj=command, ctx=context, name="plumbline")
    return CLI_HEAD + "\n".join(line.rstrip() for line in pages.replace("\n# ", "\n## ", 1).removeprefix("# `plumbline`\n").splitlines()) + "\n"


def data_dictionary() -> str:
    """Every table, view and macro of the published file with its columns, types and comments, as Markdown."""
    from warehouse.connection import open_warehouse

    with tempfile.TemporaryDirectory() as directory, open_warehouse(Path(directory) / "plumbline.duckdb") as warehouse:
        sections = _sections(warehouse.con)
    parts = [DATA_HEAD]
    for schema, title in SCHEMA_TITLES.items():
        parts.append(f"## {schema}: {title}\n")
        parts += [text for name, text in sorted(sections.items()) if name.startswith(f"{schema}.")]
    return "\n".join(parts)


def _sections(con: Any) -> dict[str, str]:
    from warehouse.migrate import definitions

    sections: dict[str, str] = {}
    told: dict[str, dict[str, str]] = {}
    for kind in ("table", "view"):
        for definition in definitions(kind):
            told[definition.name] = {column.name: column.comment for column in definition.columns}
            sections[definition.name] = f"### {definition.name}\n\n{definition.comment}\n\n" + _table(con, definition.name, told[definition.name])
    for definition in definitions("macro"):
        comment, *lines = definition.comment.split("\n")
        names = [argument.name for argument in definition.arguments]
        columns = lines[len(names) :]
        text = f"### {definition.name}({', '.join(names)})\n\n{comment}\n\n"
        text += "".join(f"- {argument.name}: {argument.comment}\n" for argument in definition.arguments)
        if definition.kind == "macro table":
            # Types do not depend on what is asked; `days` is the one argument that is no day.
            call = f"{definition.name}({', '.join('30' if name == 'days' else 'current_date' for name in names)})"
            comments = dict(line.split(": ", 1) for line in columns) or told["core.opportunity_version"]
            text += "\n" + _table(con, call, comments)
        sections[definition.name] = text
    zone = con.execute("select comment from duckdb_functions() where schema_name = 'bi' and function_name = 'business_timezone'").fetchone()
    sections["bi.business_timezone"] = f"### bi.business_timezone()\n\n{zone[0]}\n"
    return sections


def _table(con: Any, relation: str, comments: dict[str, str]) -> str:
    rows = con.execute(f"select column_name, column_type from (describe from {relation})").fetchall()
    lines = [f"| {name} | {kind} | {comments[name].replace('|', chr(92) + '|')} |" for name, kind in rows]
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *lines]) + "\n"


PAGES = {"cli.md": command_line, "data-dictionary.md": data_dictionary}

if __name__ == "__main__":
    for page, written in PAGES.items():
        (DOCS / page).write_text(written(), encoding="utf-8")
