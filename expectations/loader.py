"""Reads the suites and the `[rules]` settings into a catalogue of rules.

Strict on purpose: Great Expectations logs an unknown expectation type and runs the suite without it. Here anything that is
not understood, an unknown key, type, column, threshold or stage, or SQL that does not parse and bind, is a RuleError with
file and line, and nothing is judged. Great Expectations is not imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from expectations import guard, yaml_lines
from expectations.errors import RuleError
from expectations.rule import AUDIENCES, EXPECTATION_TYPE, GX_SEVERITY, SEVERITIES, STAGES, STATES, Catalogue, Rule
from expectations.sql_text import BadSql, Binder, fill, literal, quote, suggest, used_parameters
from expectations.verdict import NULL_REASON
from expectations.yaml_lines import Document

PACKAGED = Path(__file__).parent / "suites"

_SUITE = {"name": str, "expectations": list, "meta": dict, "notes": str}
_EXPECTATION = {"type": str, "kwargs": dict, "meta": dict, "severity": str, "description": str, "notes": str}
_KWARGS = {"applies_when": str, "unknown_when": list, "fails_when": (str, list)}
_META = {
    "rule_id": str, "title": str, "mistake": str, "severity": str, "state": str, "audience": str, "message": str, "fix": str,
    "group": str, "severity_when": list, "evidence": dict, "thresholds": dict, "reference": dict, "waivable": bool, "null_reason": str,
}  # fmt: skip
_REQUIRED_META = ("rule_id", "title", "mistake", "severity", "state", "audience", "message", "fix")
_REFERENCES = ("dwell_p90", "cycle_p95")
_COMPUTED = ("codes", "texts")
_KINDS = {str: "a text", list: "a list", dict: "a mapping", bool: "true or false", int: "a whole number"}


def load(settings: Mapping[str, Any] | None = None, suites: Path | Iterable[Path] | None = None) -> Catalogue:
    """The catalogue of `suites` (files or directories; default: the package's own) under `settings`, the [rules] table.

    `settings`: {"shadow_days": 0, "<rule_id>": {"state": …, "<threshold>": …}}. A threshold by stage takes a number for all
    stages or a mapping of some. Raises RuleError.
    """
    rules: list[Rule] = []
    settings = settings or {}
    with Binder() as binder:
        for path in _files(suites):
            _read_suite(yaml_lines.read(path), settings, binder, rules)
    _check_setting_names(settings, rules)
    shadow_days = settings.get("shadow_days", 0)
    if isinstance(shadow_days, bool) or not isinstance(shadow_days, int) or shadow_days < 0:
        raise RuleError(f"{shadow_days!r} is not a number of days", where="[rules] shadow_days")
    return Catalogue(tuple(rules), _version(rules), shadow_days)


def _files(suites: Path | Iterable[Path] | None) -> list[Path]:
    places = [PACKAGED] if suites is None else [suites] if isinstance(suites, Path) else list(suites)
    found: list[Path] = []
    for place in places:
        inside = sorted(p for p in place.iterdir() if p.suffix in (".yaml", ".yml")) if place.is_dir() else [place]
        if not inside:
            raise RuleError("there are no suites (*.yaml) here", where=str(place))
        found += inside
    return found


def _read_suite(doc: Document, settings: Mapping[str, Any], binder: Binder, rules: list[Rule]) -> None:
    if not isinstance(doc.data, dict):
        raise RuleError("a suite is a mapping with `name` and `expectations`", where=doc.where())
    _check_keys(doc, (), doc.data, _SUITE, required=("name", "expectations"))
    for i, item in enumerate(doc.data["expectations"]):
        reader = _RuleReader(doc, i, item, settings, binder)
        rule = reader.read(group=str(doc.data["name"]))
        for other in rules:
            if other.rule_id == rule.rule_id:
                raise RuleError(
                    f"the rule stands twice, also at {other.where}", where=rule.where, rule_id=rule.rule_id, fix="Rename one."
                )
        rules.append(rule)


def _check_keys(
    doc: Document, place: tuple[str | int, ...], value: Mapping[str, Any], known: Mapping[str, Any],
    *, required: Iterable[str], rule_id: str | None = None,
) -> None:  # fmt: skip
    for key, inner in value.items():
        if key not in known:
            raise RuleError(f"unknown key '{key}'", where=doc.where(*place, key), fix=suggest(str(key), known), rule_id=rule_id)
        kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
        if not isinstance(inner, kinds) or (isinstance(inner, bool) and bool not in kinds):
            wanted = " or ".join(_KINDS[kind] for kind in kinds)
            raise RuleError(f"'{key}' has to be {wanted}", where=doc.where(*place, key), rule_id=rule_id)
    for key in required:
        if key not in value:
            raise RuleError(f"the key '{key}' is missing", where=doc.where(*place), rule_id=rule_id)


class _RuleReader:
    """One expectation of a suite, and the place of everything in it."""

    def __init__(self, doc: Document, index: int, item: Any, settings: Mapping[str, Any], binder: Binder) -> None:
        self.doc, self.item, self.binder = doc, item, binder
        self.place: tuple[str | int, ...] = ("expectations", index)
        meta = item.get("meta") if isinstance(item, dict) else None
        found = meta.get("rule_id") if isinstance(meta, dict) else None
        self.rule_id = found if isinstance(found, str) else None
        self.settings = settings.get(self.rule_id, {}) if self.rule_id else {}
        self.read_by_part: list[frozenset[str]] = []
        """For each condition that fails a deal, the columns it reads that a source may keep from us."""

    def read(self, *, group: str) -> Rule:
        if not isinstance(self.item, dict):
            raise self.error("an expectation is a mapping with type, kwargs and meta")
        self.keys((), self.item, _EXPECTATION, ("type", "kwargs", "meta", "severity", "description"))
        if self.item["type"] != EXPECTATION_TYPE:
            raise self.error(f"unknown type '{self.item['type']}'", "type", fix=suggest(self.item["type"], [EXPECTATION_TYPE]))
        kwargs, meta = self.item["kwargs"], self.item["meta"]
        self.keys(("kwargs",), kwargs, _KWARGS, ("applies_when", "fails_when"))
        self.keys(("meta",), meta, _META, _REQUIRED_META)
        if not meta["rule_id"].isidentifier() or meta["rule_id"] != meta["rule_id"].lower():
            raise self.error("a rule id is made of small letters, digits and _", "meta", "rule_id")
        for key, known in (("severity", SEVERITIES), ("state", STATES), ("audience", AUDIENCES)):
            self.one_of(meta[key], known, "meta", key)
        if self.item["severity"] != GX_SEVERITY[meta["severity"]]:
            raise self.error(
                f"Great Expectations' severity of a {meta['severity']} rule is '{GX_SEVERITY[meta['severity']]}'", "severity"
            )

        thresholds, state = self.overridden(meta)
        values = {name: literal(value) for name, value in thresholds.items()}
        parts = [] if isinstance(kwargs["fails_when"], str) else self.parts(kwargs["fails_when"], values)
        resolved = self.conditions(kwargs, meta, values, parts)
        severity_sql, gravest = self.severity(meta, values)
        waivable = meta.get("waivable", True)
        snoozable = waivable and gravest != "critical"
        waived = f"list_has_any(waived_rules, [{quote(meta['rule_id'])}, '*'])" + (" or is_snoozed" if snoozable else "")
        resolved["waived_when"] = waived if waivable else "false"

        values |= {"codes": _failing(parts, 0), "texts": f"array_to_string({_failing(parts, 2)}, ', ')"}
        message_sql = self.tried(lambda: self.binder.message(meta["message"], values), "meta", "message")
        evidence_sql = self.evidence(meta.get("evidence", {}), values)
        self.all_used(meta, kwargs)
        definition = {"kwargs": resolved, "reference": meta.get("reference", {})}
        return Rule(
            rule_id=meta["rule_id"], title=meta["title"], mistake=meta["mistake"], severity=meta["severity"], state=state,
            audience=meta["audience"], group=meta.get("group", group), description=self.item["description"], fix=meta["fix"],
            waivable=waivable, gravest=gravest, kwargs=resolved, severity_sql=severity_sql, message_sql=message_sql,
            evidence_sql=evidence_sql, thresholds=thresholds, reference=self.references(meta), where=self.doc.where(*self.place),
            definition=_digest(definition), source=self.item, reads=self.reads(),
        )  # fmt: skip

    # --- the conditions -------------------------------------------------------------------------------------------------

    def conditions(
        self, kwargs: Mapping[str, Any], meta: Mapping[str, Any], values: Mapping[str, str], parts: list[tuple[str, str, str]]
    ) -> dict[str, str]:
        """applies_when, unknown_because and fails_when, each bound."""
        applies = self.sql(kwargs["applies_when"], values, "kwargs", "applies_when", kind="BOOLEAN")
        if isinstance(kwargs["fails_when"], str):
            fails = self.guarded(kwargs["fails_when"], values, "kwargs", "fails_when")
        else:
            fails = " or ".join(f"({sql})" for _, sql, _ in parts)
        cases, unknown = [], [f"({fails}) is null"]
        for i, clause in enumerate(kwargs.get("unknown_when", [])):
            place = ("kwargs", "unknown_when", i)
            self.clause(clause, place, ("if", "because"))
            condition = self.sql(clause["if"], values, *place, "if", kind="BOOLEAN")
            unknown.append(f"({condition})")
            cases.append(f"when {condition} then {quote(clause['because'])}")
        cases.append(f"when ({fails}) is null then {quote(meta.get('null_reason', NULL_REASON))}")
        because = f"case {' '.join(cases)} end"
        if columns := frozenset().union(*self.read_by_part):  # what is kept from us is the reason before any other
            kept = f"case when {' or '.join(unknown)} then {guard.named(columns)} end"
            because = f"case when {guard.unreadable(columns)} then {kept} else {because} end"
        return {"applies_when": applies, "unknown_because": because, "fails_when": fails}

    def guarded(self, expression: Any, values: Mapping[str, str], *place: str | int) -> str:
        """A condition that fails a deal: NULL where it hangs on what the deal's source keeps from us."""
        condition = self.sql(expression, values, *place, kind="BOOLEAN")
        self.read_by_part.append(guard.concerned(self.binder.con, condition))
        return guard.guarded(self.binder.con, condition)

    def reads(self) -> dict[str, bool]:
        """What the rule needs to read, as columns of core.opportunity, and whether all its conditions do."""
        parts = [{made for column in part for made in guard.MADE_OF[column]} for part in self.read_by_part]
        return {column: all(column in part for part in parts) for column in sorted(set().union(*parts))}

    def parts(self, clauses: list[Any], values: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """(code, condition, text) of a rule that fails in several ways."""
        if not clauses:
            raise self.error("the list is empty", "kwargs", "fails_when")
        result = []
        for i, clause in enumerate(clauses):
            place = ("kwargs", "fails_when", i)
            self.clause(clause, place, ("code", "if", "text"))
            result.append((clause["code"], self.guarded(clause["if"], values, *place, "if"), clause["text"]))
        return result

    def severity(self, meta: Mapping[str, Any], values: Mapping[str, str]) -> tuple[str, str]:
        """SQL text expression for the severity on a deal, and the gravest that it can give."""
        grades, cases = [meta["severity"]], []
        for i, clause in enumerate(meta.get("severity_when", [])):
            place = ("meta", "severity_when", i)
            self.clause(clause, place, ("if", "then"))
            self.one_of(clause["then"], SEVERITIES, *place, "then")
            grades.append(clause["then"])
            cases.append(f"when {self.sql(clause['if'], values, *place, 'if', kind='BOOLEAN')} then {quote(clause['then'])}")
        sql = f"case {' '.join(cases)} else {quote(meta['severity'])} end" if cases else quote(meta["severity"])
        return sql, min(grades, key=SEVERITIES.index)

    def evidence(self, evidence: Mapping[str, Any], values: Mapping[str, str]) -> str:
        pairs = []
        for name, expression in evidence.items():
            if not isinstance(expression, str):
                raise self.error(f"the evidence '{name}' has to be an SQL expression", "meta", "evidence", name)
            pairs.append(f"{quote(name)}: {self.sql(expression, values, 'meta', 'evidence', name)}")
        return f"to_json({{{', '.join(pairs)}}})" if pairs else "'{}'::json"

    # --- thresholds and settings ----------------------------------------------------------------------------------------

    def overridden(self, meta: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Thresholds and state after the settings."""
        thresholds: dict[str, Any] = {}
        for name, default in meta.get("thresholds", {}).items():
            if name in _COMPUTED or name in self.binder.columns or not name.isidentifier():
                raise self.error(f"'{name}' cannot name a threshold: it is taken", "meta", "thresholds", name)
            self.check_default(name, default)
            thresholds[name] = default
        where = f"[rules.{self.rule_id}]"
        if not isinstance(self.settings, Mapping):
            raise RuleError("a rule's settings are a table", where=where, fix=f'Write {where} and below it state = "observe".')
        state = meta["state"]
        for key, value in self.settings.items():
            if key == "state":
                if value not in STATES:
                    raise RuleError(f"{value!r} is not a state", where=f"{where} state", fix=suggest(str(value), STATES))
                state = value
            elif key in thresholds:
                thresholds[key] = _override(f"{where} {key}", thresholds[key], value)
            else:
                raise RuleError(f"unknown key '{key}'", where=where, fix=suggest(key, ["state", *thresholds]))
        return thresholds, state

    def check_default(self, name: str, default: Any) -> None:
        place = ("meta", "thresholds", name)
        if isinstance(default, dict):
            for stage, number in default.items():
                if stage != "*":
                    self.one_of(stage, STAGES, *place, stage)
                if number is not None and not _is_count(number):
                    raise self.error(f"{number!r} is not a whole number", *place, stage)
        elif isinstance(default, list):
            if not all(isinstance(item, str) for item in default):
                raise self.error("the list may hold texts only", *place)
        elif not (default is None or isinstance(default, bool) or _is_count(default)):
            raise self.error(f"{default!r} is not a whole number, true, false, a list or numbers by stage", *place)

    def references(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in meta.get("reference", {}).items():
            self.one_of(name, _REFERENCES, "meta", "reference", name)
            numbers = value.values() if isinstance(value, dict) else [value]
            if not all(_is_count(number) for number in numbers):
                raise self.error("built-in values are whole numbers of days", "meta", "reference", name)
        return dict(meta.get("reference", {}))

    def all_used(self, meta: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
        """A threshold that no condition reads would be a setting without effect."""
        used = used_parameters(json.dumps([kwargs, meta.get("severity_when", [])]).replace('\\"', '"'))
        for name in meta.get("thresholds", {}):
            if name not in used:
                raise self.error(f"no condition uses the threshold '${name}'", "meta", "thresholds", name)

    # --- small helpers --------------------------------------------------------------------------------------------------

    def sql(self, expression: Any, values: Mapping[str, str], *place: str | int, kind: str | None = None) -> str:
        if not isinstance(expression, str):
            raise self.error("this has to be an SQL expression", *place)

        def bound() -> str:
            filled = fill(expression, values)
            found = self.binder.bind(filled)
            if kind is not None and found not in (kind, '"NULL"'):
                raise BadSql(f"the SQL has to be true or false, it is {found}")
            return filled

        return self.tried(bound, *place)

    def tried(self, action: Any, *place: str | int) -> str:
        try:
            return str(action())
        except BadSql as problem:
            raise self.error(problem.what, *place, fix=problem.fix) from problem

    def clause(self, clause: Any, place: tuple[str | int, ...], keys: tuple[str, ...]) -> None:
        if not isinstance(clause, dict):
            raise self.error(f"a clause is a mapping with {', '.join(keys)}", *place)
        self.keys(place, clause, dict.fromkeys(keys, str), keys)

    def one_of(self, value: Any, known: Iterable[str], *place: str | int) -> None:
        if value not in known:
            raise self.error(f"unknown {place[-1]} '{value}'", *place, fix=suggest(str(value), known))

    def keys(self, place: tuple[str | int, ...], value: Any, known: Mapping[str, Any], required: Iterable[str]) -> None:
        _check_keys(self.doc, (*self.place, *place), value, known, required=required, rule_id=self.rule_id)

    def error(self, what: str, *place: str | int, fix: str = "") -> RuleError:
        return RuleError(what, where=self.doc.where(*self.place, *place), fix=fix, rule_id=self.rule_id)


def _failing(parts: list[tuple[str, str, str]], column: int) -> str:
    """SQL list of the codes (column 0) or texts (2) of the parts that fail on a deal; empty for a rule with one condition."""
    items = ", ".join(f"case when {part[1]} then {quote(part[column])} end" for part in parts)
    return f"list_filter([{items}]::varchar[], lambda x: x is not null)"


def _override(where: str, default: Any, value: Any) -> Any:
    """A setting in the place of a default of the same kind."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise RuleError(f"{value!r} is not true or false", where=where)
        return value
    if isinstance(default, list):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise RuleError(f"{value!r} is not a list of texts", where=where)
        return value
    if not isinstance(default, dict):
        if not _is_count(value):
            raise RuleError(f"{value!r} is not a whole number", where=where)
        return value
    if _is_count(value):
        return dict.fromkeys(default, value)
    if not isinstance(value, Mapping):
        raise RuleError(f"{value!r} is neither a whole number nor numbers by stage", where=where, fix="Write { negotiation = 7 }.")
    allowed = STAGES if "*" in default else tuple(default)
    for stage, number in value.items():
        if stage not in allowed:
            raise RuleError(f"the rule has no threshold for '{stage}'", where=where, fix=suggest(str(stage), allowed))
        if not _is_count(number):
            raise RuleError(f"{number!r} is not a whole number", where=f"{where}.{stage}")
    return {**default, **value}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_setting_names(settings: Mapping[str, Any], rules: list[Rule]) -> None:
    known = [rule.rule_id for rule in rules]
    for key in settings:
        if key != "shadow_days" and key not in known:
            raise RuleError(f"there is no rule '{key}'", where="[rules]", fix=suggest(key, ["shadow_days", *known]))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _version(rules: list[Rule]) -> str:
    """Changes when any verdict, severity, group or state may."""
    return _digest([(r.rule_id, r.definition, r.severity_sql, r.state, r.group) for r in rules])
