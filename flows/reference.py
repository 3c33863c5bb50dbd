"""docs/cli.md, written from the commands themselves: `make docs`. A test keeps the file current."""

from __future__ import annotations

from pathlib import Path

PLACE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """\
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


def reference() -> str:
    """The reference of every command and option, as Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from flows.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="plumbline")
    pages = get_docs_for_click(obj=command, ctx=context, name="plumbline")
    return HEAD + "\n".join(line.rstrip() for line in pages.replace("\n# ", "\n## ", 1).removeprefix("# `plumbline`\n").splitlines()) + "\n"


if __name__ == "__main__":
    PLACE.write_text(reference(), encoding="utf-8")
