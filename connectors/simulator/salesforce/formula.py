"""Formula fields and validation rules: the part of Salesforce's formula language that such things mostly use, as DuckDB SQL."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from connectors.simulator.salesforce.catalogue import SObject

_GRAMMAR = r"""
?start: or_
?or_: and_ ("||" and_)* -> either
?and_: comparison ("&&" comparison)* -> both
?comparison: sum (OPERATOR sum)?
?sum: product (PLUS product)*
?product: unary (TIMES unary)*
?unary: "-" unary -> minus
      | "!" unary -> negation
      | atom
?atom: NUMBER -> number
     | STRING -> string
     | NAME "(" [or_ ("," or_)*] ")" -> call
     | NAME -> field
     | "(" or_ ")" -> group
OPERATOR: "<>" | "!=" | "<=" | ">=" | "==" | "=" | "<" | ">"
PLUS: "+" | "-" | "&"
TIMES: "*" | "/"
NUMBER: /\d+(\.\d+)?/
STRING: /"[^"]*"|'[^']*'/
NAME: /[a-z]\w*(\.\w+)*/i
%import common.WS
%ignore WS
"""
_FUNCTIONS = {
    "TODAY": "{{today}}",
    "NOW": "{{now}}",
    "DATEVALUE": "({0})::DATE",
    "TEXT": "({0})::VARCHAR",
    "IF": "CASE WHEN {0} THEN {1} ELSE {2} END",
    "NOT": "NOT coalesce({0}, false)",
    "ISPICKVAL": "({0} IS NOT DISTINCT FROM nullif({1}, ''))",
    "ISBLANK": "({0} IS NULL)",
    "ISNULL": "({0} IS NULL)",
    "BLANKVALUE": "coalesce({0}, {1})",
    "NULLVALUE": "coalesce({0}, {1})",
    "LEN": "length({0})",
    "ABS": "abs({0})",
    "ROUND": "round({0}, {1})",
    "MAX": "greatest({0}, {1})",
    "MIN": "least({0}, {1})",
    "YEAR": "year({0})",
    "MONTH": "month({0})",
    "DAY": "day({0})",
}


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


@v_args(inline=True)
class _ToSql(Transformer[Token, str]):
    def __init__(self, sobject: SObject, objects: Mapping[str, SObject]) -> None:
        super().__init__()
        self.sobject, self.objects = sobject, objects

    def either(self, *parts: str) -> str:
        return parts[0] if len(parts) == 1 else "(" + " OR ".join(f"coalesce({p}, false)" for p in parts) + ")"

    def both(self, *parts: str) -> str:
        return parts[0] if len(parts) == 1 else "(" + " AND ".join(f"coalesce({p}, false)" for p in parts) + ")"

    def comparison(self, left: str, operator: Any, right: str) -> str:
        return f"({left} {({'==': '=', '!=': '<>'}).get(str(operator), str(operator))} {right})"

    def sum(self, first: str, *rest: Any) -> str:
        signs = {"&": "||"}
        return "(" + " ".join([first, *(signs.get(str(part), str(part)) for part in rest)]) + ")"

    def product(self, first: str, *rest: Any) -> str:
        return "(" + " ".join([first, *map(str, rest)]) + ")"

    def minus(self, x: str) -> str:
        return f"(-{x})"

    def negation(self, x: str) -> str:
        return f"NOT coalesce({x}, false)"

    def group(self, x: str) -> str:
        return f"({x})"

    def number(self, token: Token) -> str:
        return str(token)

    def string(self, token: Token) -> str:
        return "'" + str(token)[1:-1].replace("'", "''") + "'"

    def call(self, name: Token, *arguments: Any) -> str:
        function, given = str(name).upper(), [a for a in arguments if a is not None]
        if function in {"AND", "OR"}:
            return (self.both if function == "AND" else self.either)(*given)
        if function == "CASE":
            pairs = " ".join(f"WHEN {given[0]} = {given[i]} THEN {given[i + 1]}" for i in range(1, len(given) - 1, 2))
            return f"CASE {pairs} ELSE {given[-1]} END"
        if function == "ISCHANGED":
            return f"({given[0]} IS DISTINCT FROM {given[0].replace('{t}', '{o}')})"
        if function == "PRIORVALUE":
            return given[0].replace("{t}", "{o}")
        if function not in _FUNCTIONS:
            raise ValueError(f"Unknown function in formula: {function}")
        return _FUNCTIONS[function].format(*given)

    def field(self, token: Token) -> str:
        path = str(token).split(".")
        if [p.lower() for p in path] in (["true"], ["false"], ["null"]):
            return path[0]
        sobject, sql = self.sobject, "{t}"
        for step, part in enumerate(path[:-1]):
            lookup = sobject.parent(part, hidden=True)
            if lookup is None:
                raise ValueError(f"Unknown relationship in formula: {'.'.join(path[: step + 1])}")
            sobject = self.objects[lookup.reference_to[0]]
            sql = f"{sql}\x00{lookup.name}\x00{sobject.name}"
        f = sobject.field(path[-1], hidden=True)
        if f is None:
            raise ValueError(f"Unknown field in formula: {'.'.join(path)}")
        return _through(sql, f.sql or f'{{t}}."{f.name}"')


def _through(path: str, value: str) -> str:
    """A value read through lookups, as nested scalar subqueries; `path` is {t}, then lookup and object per step."""
    start, *steps = path.split("\x00")
    depth = len(steps) // 2
    if not depth:
        return value
    aliases = [start, *(f"p{i}" for i in range(depth))]
    sql = value.replace("{t}", aliases[-1])
    for i in range(depth - 1, -1, -1):
        lookup, target = steps[2 * i], steps[2 * i + 1]
        sql = f'(SELECT {sql} FROM "{target}" {aliases[i + 1]} WHERE {aliases[i + 1]}."Id" = {aliases[i]}."{lookup}")'
    return sql


def to_sql(formula: str, sobject: SObject, objects: Mapping[str, SObject]) -> str:
    """SQL in which {t} is the record, {o} its state before the change (ISCHANGED), {today} and {now} the present.

    Raises ValueError when the formula is not understood.
    """
    try:
        return _ToSql(sobject, objects).transform(_parser().parse(formula))
    except UnexpectedInput as error:
        raise ValueError(f"Syntax error in formula at {error.pos_in_stream}: {formula}") from error
    except Exception as error:
        cause = getattr(error, "orig_exc", error)
        raise ValueError(str(cause)) from error
