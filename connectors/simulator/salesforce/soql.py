"""From the text of a SOQL query to a small syntax tree. What the names mean is `compile.py`'s business."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedEOF, UnexpectedInput
from lark.exceptions import VisitError

from connectors.simulator.salesforce.errors import SalesforceError


@dataclass
class Name:
    """A field path such as Account.Owner.Name, and where in the text it stands (0-based)."""

    path: list[str]
    at: int


@dataclass
class Call:
    """A function: an aggregate, toLabel(), FIELDS(), a date function. `argument` None for COUNT()."""

    name: str
    argument: Name | Call | None
    alias: str | None
    at: int


@dataclass
class TypeOf:
    """TYPEOF field WHEN object THEN fields … ELSE fields END; `otherwise` None without ELSE."""

    field: Name
    when: list[tuple[Name, list[Name]]]
    otherwise: list[Name] | None
    at: int


@dataclass
class Macro:
    """A date literal such as TODAY or LAST_N_DAYS:30."""

    name: str
    n: int | None
    at: int


@dataclass
class Literal:
    """A value: str, int/Decimal, bool, None, date, aware datetime, or a Macro."""

    value: Any
    at: int


@dataclass
class Comparison:
    left: Name | Call
    operator: str  # = != < <= > >= LIKE IN NOT IN INCLUDES EXCLUDES
    right: Literal | list[Literal] | Select


@dataclass
class Logic:
    operator: str  # AND OR NOT
    parts: list[Any]


@dataclass
class Order:
    by: Name | Call
    descending: bool
    nulls_last: bool


@dataclass
class Select:
    items: list[Name | Call | Select | TypeOf]
    sobject: str
    at: int  # of the object's name
    alias: str | None = None
    where: Any = None
    group_by: list[Name | Call] = field(default_factory=list)
    having: Any = None
    order_by: list[Order] = field(default_factory=list)
    limit: int | None = None
    offset: int | None = None
    all_rows: bool = False


LONGEST = 100_000  # characters of a query

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


def _unquote(text: str) -> str:
    # \% and \_ stay escaped: they are literal characters of a LIKE pattern.
    def plain(match: re.Match[str]) -> str:
        c = match[1]
        return _ESCAPES.get(c.lower(), match[0] if c in "%_" else c)

    return re.sub(r"\\(.)", plain, text[1:-1])


class _Builder(Transformer[Token, Any]):
    """One method per rule of the grammar. `list` and `items` are their children as they come."""

    def __default__(self, data: Any, children: Any, meta: Any) -> Any:
        return children if data == "list" else super().__default__(data, children, meta)

    def alias(self, c: list[Any]) -> str:
        return str(c[0])

    def _name(self, token: Token) -> Name:
        return Name(str(token).split("."), token.start_pos or 0)

    def field(self, c: list[Any]) -> Name:
        return self._name(c[0])

    argument_name = operand_name = field

    def argument_call(self, c: list[Any]) -> Any:
        return c[0]

    operand_call = argument_call

    def call(self, c: list[Any]) -> Call:
        return Call(str(c[0]), c[1], c[2], c[0].start_pos or 0)

    def subquery(self, c: list[Any]) -> Select:
        return c[0]

    def otherwise(self, c: list[Any]) -> list[Name]:
        return [self._name(token) for token in c[1:]]

    def when(self, c: list[Any]) -> tuple[Name, list[Name]]:
        return self._name(c[1]), [self._name(token) for token in c[3:]]

    def typeof(self, c: list[Any]) -> TypeOf:
        return TypeOf(self._name(c[1]), c[2:-2], c[-2], c[0].start_pos or 0)

    def items(self, c: list[Any]) -> list[Any]:
        return c

    def value(self, c: list[Any]) -> Literal:
        token: Token = c[0]
        text, at = str(token), token.start_pos or 0
        kind = token.type
        try:
            if kind == "STRING":
                return Literal(_unquote(text), at)
            if kind == "NUMBER":
                return Literal(Decimal(text), at)
            if kind == "DATE":
                return Literal(date.fromisoformat(text), at)
            if kind == "DATETIME":
                return Literal(datetime.fromisoformat(text.upper()).astimezone(UTC), at)
        except (ValueError, OverflowError) as error:
            raise _Malformed(f"invalid literal: {text}", at) from error
        if kind in {"TRUE", "FALSE"}:
            return Literal(kind == "TRUE", at)
        if kind == "NULL":
            return Literal(None, at)
        name, _, n = text.partition(":")
        return Literal(Macro(name.upper(), int(n) if n else None, at), at)

    def operator(self, c: list[Any]) -> str:
        return "!=" if str(c[0]) == "<>" else str(c[0]).upper()

    def comparison(self, c: list[Any]) -> Comparison:
        return Comparison(c[0], c[1], c[2])

    def within(self, c: list[Any]) -> Comparison:
        return Comparison(c[0], "IN", c[2])

    def not_within(self, c: list[Any]) -> Comparison:
        return Comparison(c[0], "NOT IN", c[3])

    def includes(self, c: list[Any]) -> Comparison:
        return Comparison(c[0], "INCLUDES", c[2])

    def excludes(self, c: list[Any]) -> Comparison:
        return Comparison(c[0], "EXCLUDES", c[2])

    def and_chain(self, c: list[Any]) -> Logic:
        return Logic("AND", c[::2])

    def or_chain(self, c: list[Any]) -> Logic:
        return Logic("OR", c[::2])

    def negation(self, c: list[Any]) -> Logic:
        return Logic("NOT", [c[1]])

    def where(self, c: list[Any]) -> Any:
        return c[1]

    having = where

    def group(self, c: list[Any]) -> tuple[list[Any], Any]:
        return c[2:-1], c[-1]

    def order(self, c: list[Any]) -> list[Order]:
        return c[2:]

    def order_item(self, c: list[Any]) -> Order:
        return Order(c[0], c[1] == "DESC", c[2] == "LAST")

    def direction(self, c: list[Any]) -> str:
        return c[0].type

    def nulls(self, c: list[Any]) -> str:
        return c[1].type

    def limit(self, c: list[Any]) -> int:
        return int(c[1])

    offset = limit

    def all_rows(self, c: list[Any]) -> bool:
        return True

    def select(self, c: list[Any]) -> Select:
        _, items, _, name, alias, where, group, order, limit, offset, all_rows = c
        group_by, having = group or ([], None)
        return Select(
            items, str(name), name.start_pos or 0, alias, where, group_by, having, order or [], limit, offset, bool(all_rows)
        )  # fmt: skip

    def start(self, c: list[Any]) -> Select:
        return c[0]


class _Malformed(Exception):
    def __init__(self, message: str, at: int) -> None:
        self.message, self.at = message, at
        super().__init__(message)


@cache
def _parser() -> Lark:
    grammar = Path(__file__).with_name("soql.lark").read_text()
    return Lark(grammar, parser="lalr", lexer="basic", maybe_placeholders=True, propagate_positions=False)


def located(text: str, at: int, message: str) -> str:
    """A message with the place in the query, as Salesforce words it: an excerpt, a caret, row and column (1-based)."""
    before, row = text[:at], text.count("\n", 0, at) + 1
    column = at - (before.rfind("\n") + 1) + 1
    start = max(before.rfind("\n") + 1, at - 40)
    end = text.find("\n", at)
    excerpt = text[start : min(at + 40, len(text) if end < 0 else end)]
    return f"\n{excerpt}\n{' ' * (at - start)}^\nERROR at Row:{row}:Column:{column}\n{message}"


def malformed(text: str, at: int, message: str) -> SalesforceError:
    return SalesforceError("MALFORMED_QUERY", located(text, at, message))


def parse(text: str) -> Select:
    """The query as a tree. Raises SalesforceError MALFORMED_QUERY."""
    if len(text) > LONGEST:
        raise SalesforceError("MALFORMED_QUERY", f"SOQL statements cannot be longer than {LONGEST} characters.")
    try:
        return _Builder().transform(_parser().parse(text))
    except UnexpectedEOF as error:
        raise malformed(text, len(text), "unexpected token: '<EOF>'") from error
    except UnexpectedCharacters as error:
        raise malformed(text, error.pos_in_stream or 0, f"unexpected char: '{error.char}'") from error
    except UnexpectedInput as error:
        token = getattr(error, "token", None)
        if token is None or token.type == "$END":
            raise malformed(text, len(text), "unexpected token: '<EOF>'") from error
        raise malformed(text, error.pos_in_stream or 0, f"unexpected token: '{token}'") from error
    except VisitError as error:
        if isinstance(error.orig_exc, _Malformed):
            raise malformed(text, error.orig_exc.at, error.orig_exc.message) from error
        raise
