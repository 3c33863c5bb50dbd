"""SQL expressions out of suite files: parameters, message templates, and a check that each one parses and binds.

An expression comes from a configuration file and is put into larger statements, so it has to be exactly one expression over
the columns of `subject`: no second statement, no comment that would swallow what follows, no aggregate, and no clock but
business_date. Whatever does not hold is a BadSql, which the loader turns into an error with file and line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import duckdb

_STRING = r"'(?:[^']|'')*'"
_PARAMETER = re.compile(rf"{_STRING}|\$([A-Za-z_]\w*)")
_COMMENT = re.compile(rf"{_STRING}|\"[^\"]*\"|(--|/\*)")
_FORMAT = re.compile(r"(?<!:):(days|money|number|date|percent)\s*$")
_CLOCKS = {
    "now", "today", "current_date", "current_timestamp", "current_time", "localtime", "localtimestamp", "get_current_timestamp",
    "get_current_time", "transaction_timestamp", "current_localtime", "current_localtimestamp", "random", "uuid", "gen_random_uuid",
}  # fmt: skip


class BadSql(Exception):
    """The expression cannot be used. `what` says why, `fix` what to do about it (or '')."""

    def __init__(self, what: str, fix: str = "") -> None:
        self.what, self.fix = what, fix
        super().__init__(what)


def read_sql(name: str) -> str:
    """The text of a file in expectations/sql."""
    return files("expectations").joinpath("sql", name).read_text(encoding="utf-8")


def suggest(word: str, known: Iterable[str]) -> str:
    """'Did you mean x?', or the words that would be right."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'?" if close else f"Known are: {', '.join(names) or 'none'}."


def literal(value: Any) -> str:
    """A threshold as SQL: number, boolean, NULL, list of texts, or a number for each stage ('*': every other stage)."""
    if value is None:
        return "null::integer"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(quote(str(item)) for item in value) + "]::varchar[]"
    cases = " ".join(f"when {quote(stage)} then {literal(n)}" for stage, n in value.items() if stage != "*")
    otherwise = f" else {literal(value['*'])}" if "*" in value else ""
    return f"(case stage {cases}{otherwise} end)" if cases else f"({literal(value.get('*'))})"


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def fill(expression: str, parameters: Mapping[str, str]) -> str:
    """Puts SQL in the place of each `$name` outside of quotes. An unknown name is a BadSql."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)
        if name not in parameters:
            raise BadSql(f"'${name}' is not a threshold of this rule", suggest(name, parameters))
        return parameters[name]

    return _PARAMETER.sub(one, expression)


def used_parameters(expression: str) -> set[str]:
    return {match.group(1) for match in _PARAMETER.finditer(expression) if match.group(1)}


class Binder:
    """Parses and binds expressions against an empty `subject` in a private database."""

    def __init__(self) -> None:
        self._con = duckdb.connect()
        self._con.execute("attach ':memory:' as plumbline_check; set timezone = 'UTC'; set enable_external_access = false")
        self._con.execute(read_sql("subject_table.sql"))
        self.columns = {str(r[0]): str(r[1]) for r in self._con.execute("describe plumbline_check.subject").fetchall()}

    def __enter__(self) -> Binder:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        return self._con

    def bind(self, expression: str) -> str:
        """The DuckDB type of the expression."""
        if any(match.group(1) for match in _COMMENT.finditer(expression)):
            raise BadSql("the SQL holds a comment", "Write it as a YAML comment (#) instead.")
        self._parse(expression)
        try:
            # Bound in a WHERE too: aggregates and window functions bind in a SELECT, but a rule judges each deal by itself.
            bound = f"describe select ({expression}) as value from plumbline_check.subject where ({expression}) is null"
            return str(self._con.execute(bound).fetchall()[0][1])
        except duckdb.Error as error:
            raise self._explain(error) from error

    def _parse(self, expression: str) -> None:
        row = self._con.execute("select json_serialize_sql(?)", [f"select ({expression})"]).fetchone()
        tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
        if tree.get("error"):
            raise BadSql(f"this is not valid SQL: {_first_line(tree.get('error_message', 'it does not parse'))}")
        statements = tree["statements"]
        if len(statements) != 1 or len(statements[0]["node"].get("select_list", [])) != 1:
            raise BadSql("this is not one SQL expression", "Write a single expression over the columns of the deal.")
        for clock in _names(statements[0]["node"]) & _CLOCKS:
            raise BadSql(f"'{clock}' is a clock or a die", "The only clock of a rule is the column business_date.")

    def _explain(self, error: duckdb.Error) -> BadSql:
        text = _first_line(str(error))
        column = re.search(r'(?:Referenced column|column named) "([^"]+)"', text)
        if column:
            return BadSql(f"there is no column '{column.group(1)}'", suggest(column.group(1), self.columns))
        return BadSql(f"this SQL does not fit the deal: {text}")

    def message(self, template: str, parameters: Mapping[str, str]) -> str:
        """SQL text expression for a template: text with {expression} or {expression:format} in braces, {{ and }} for braces.

        Formats: days (12 days), money (EUR 12,300, in the deal's currency), number, date (3 Dec 2026), percent. Without one,
        dates and decimals have theirs, lists are joined by commas. An empty value reads '?'.
        """
        parts: list[str] = []
        for text, expression in _split(template):
            if text:
                parts.append(quote(text))
            if expression is not None:
                found = _FORMAT.search(expression)
                value = fill(expression[: found.start()] if found else expression, parameters)
                parts.append(f"coalesce(({self._format(value, found.group(1) if found else None)})::varchar, '?')")
        if not parts:
            raise BadSql("the message is empty")
        return "concat(" + ", ".join(parts) + ")"

    def _format(self, value: str, how: str | None) -> str:
        kind = self.bind(value)
        if how is None:
            how = "date" if kind == "DATE" else "number" if kind.startswith(("DECIMAL", "DOUBLE")) else None
        whole = f"round(({value}))::bigint"
        if how == "days":
            return f"concat({whole}, case when {whole} = 1 then ' day' else ' days' end)"
        if how == "date":
            return f"strftime(({value}), '%-d %b %Y')"
        if how == "money":
            return f"coalesce(currency || ' ', '') || format('{{:,}}', {whole})"
        if how == "number":
            return f"format('{{:,}}', {whole})"
        if how == "percent":
            return f"concat(round(100 * ({value}))::bigint, ' %')"
        return f"array_to_string(({value}), ', ')" if kind.endswith("[]") else f"({value})"


def _split(template: str) -> list[tuple[str, str | None]]:
    """(text, expression) pairs of a template; quotes inside an expression may hold braces."""
    pairs: list[tuple[str, str | None]] = []
    text, i = "", 0
    while i < len(template):
        two = template[i : i + 2]
        if two in ("{{", "}}"):
            text, i = text + two[0], i + 2
        elif template[i] == "{":
            match = re.compile(rf"((?:{_STRING}|[^'}}])*)}}").match(template, i + 1)
            if match is None:
                raise BadSql("a brace is opened and not closed", "Write {{ for a brace as text.")
            pairs.append((text, match.group(1)))
            text, i = "", match.end()
        elif template[i] == "}":
            raise BadSql("a brace is closed that was not opened", "Write }} for a brace as text.")
        else:
            text, i = text + template[i], i + 1
    if text:
        pairs.append((text, None))
    return pairs


def _names(node: Any) -> set[str]:
    """Functions and bare columns that a serialised syntax tree names, in lower case."""
    if isinstance(node, list):
        return set().union(*map(_names, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(_names, node.values())) if node else set()
    if isinstance(node.get("function_name"), str):
        found.add(node["function_name"].lower())
    if node.get("class") == "COLUMN_REF":
        found.add(str(node["column_names"][-1]).lower())
    return found


def _first_line(text: str) -> str:
    return re.sub(r"^(Binder|Parser|Catalog|Conversion|Invalid Input) Error:\s*", "", text.strip().splitlines()[0])
