"""What is in the way of a good night: configuration, credentials, permissions, fields, history, budget, stages, warehouse, Prefect.

A line each, with what to do. Nothing is written, nowhere: no run is recorded, and it works before the first sync and beside a run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from flows.errors import CRM_FAILED, DONE, USAGE, WAREHOUSE_FAILED, ConfigError
from flows.steps import prefect_answers, prefect_api, together

if TYPE_CHECKING:
    from connectors.diagnosis import Diagnosis, State
    from expectations.rule import Catalogue
    from flows.run import Say
    from flows.settings import Settings, SourceSettings
    from warehouse.look import Look

Cause = Literal["configuration", "crm", "warehouse"]
EXIT: tuple[tuple[Cause, int], ...] = (("configuration", USAGE), ("crm", CRM_FAILED), ("warehouse", WAREHOUSE_FAILED))  # the first one that fits
MARKS: dict[str, str] = {"ok": "✓", "warning": "!", "problem": "✗"}
STALE = timedelta(hours=36)  # a night was missed
SHOWN = 5  # fields that a line names before it counts


@dataclass(frozen=True)
class Line:
    """One finding: what, and what to do about it. cause: what a scheduler is told when it is a problem."""

    area: str
    state: State
    said: str
    fix: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    cause: Cause = "configuration"

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Checkup:
    """Lines per source, and those of the installation. `crms` has CRM and address of each source."""

    sources: dict[str, list[Line]] = field(default_factory=dict)
    general: list[Line] = field(default_factory=list)
    crms: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def all(self) -> list[Line]:
        return [*(line for lines in self.sources.values() for line in lines), *self.general]

    def count(self, state: State) -> int:
        return sum(line.state == state for line in self.all)

    @property
    def exit_code(self) -> int:
        """0 without problems, warnings or not; else by cause: 2 configuration, 3 a CRM, 4 the warehouse, the first that applies."""
        causes = {line.cause for line in self.all if line.state == "problem"}
        return next((code for cause, code in EXIT if cause in causes), DONE)

    def document(self) -> dict[str, Any]:
        return {
            "status": "problem" if self.exit_code else "warning" if self.count("warning") else "ok",
            "exit_code": self.exit_code,
            "problems": self.count("problem"),
            "warnings": self.count("warning"),
            "sources": [
                {"source": name, "crm": self.crms[name][0], "address": self.crms[name][1], "lines": [line.document() for line in lines]}
                for name, lines in self.sources.items()
            ],
            "general": [line.document() for line in self.general],
        }

    def lines(self, *, quiet: bool = False) -> list[str]:
        """A block per source, then the general one. quiet: only what is wrong."""
        from flows.settings import CRM_NAMES

        width = max((len(line.area) for line in self.all), default=0)
        said = []
        for name, lines in self.sources.items():
            crm, address = self.crms[name]
            said += _block(f"{name} ({CRM_NAMES[crm]}, {urlsplit(address).netloc})", lines, width, quiet)
        said += _block("Plumbline", self.general, width, quiet)
        problems, warnings = self.count("problem"), self.count("warning")
        told = [f"{n} {word}{'s' if n != 1 else ''}" for n, word in ((problems, "problem"), (warnings, "warning")) if n]
        return [*said, " and ".join(told).capitalize() + "." if told else "Nothing is in the way."]


def _block(title: str, lines: list[Line], width: int, quiet: bool) -> list[str]:
    shown = [line for line in lines if line.state != "ok" or not quiet]
    said = [title] if shown else []
    for line in shown:
        said.append(f"  {MARKS[line.state]} {line.area:<{width}}  {line.said}")
        said += [f"    {'':<{width}}  → {line.fix}"] if line.fix else []
    return [*said, ""] if said else []


def doctor(config: Path | None, now: datetime, sources: list[str] | None = None, *, say: Say | None = None) -> Checkup:
    """Look at everything that a night depends on.

    config: as given on the command line. sources: names; all when None. A configuration that cannot be used is a finding; then no
    source is known and none is looked at. Raises UnknownSource for a name that it does not have.
    """
    from flows.settings import find_file, load_settings

    checkup = Checkup()
    try:
        settings = load_settings(config)
        chosen = settings.chosen(sources)
    except ConfigError as error:
        if type(error) is not ConfigError:  # a wrong name on the command line is a matter of usage
            raise
        checkup.general = [*_mistakes(find_file(config), error), prefect()]
        return checkup
    catalogue, rules = _rules(settings)
    checkup.crms = {source.name: (source.crm, _address(source)) for source in chosen}
    looks = together([partial(_ask, source, writes=settings.writeback.mode != "off", say=say) for source in chosen])
    warehouse = _look(settings)
    for source, found in zip(chosen, looks, strict=True):
        if isinstance(found, BaseException):
            raise found
        lines = [Line(d.area, d.state, d.said, d.fix, d.detail, "crm") for d in found]
        lines = _with_rules(source, lines, catalogue, warehouse)
        checkup.sources[source.name] = [*lines, *_stages(source, warehouse), *_values(source, warehouse), *_synced(source, warehouse, now)]
    count = f"{len(settings.sources)} source{'s' if len(settings.sources) != 1 else ''}"
    read = Line("configuration", "ok", f"{settings.file} is in order: {count}, write-back {settings.writeback.mode}")
    checkup.general = [read, rules, *_warehouse(settings, warehouse), prefect()]
    return checkup


# Configuration and rules


def _mistakes(file: Path, error: ConfigError) -> list[Line]:
    """A ConfigError as lines: one for each mistake that it lists."""
    first, *rest = str(error).splitlines()
    listed = [line.strip() for line in rest if line.startswith("  ")]
    if listed:
        return [Line("configuration", "problem", *_apart(line)) for line in listed]
    return [Line("configuration", "problem", first, " ".join(rest) or f"Look into {file}; docs/configuration.md has every key.")]


def _apart(mistake: str) -> tuple[str, str]:
    """A mistake and its remedy, where the line has both: "… is not set. Run: export X=…"."""
    said, _, fix = mistake.rstrip(".").partition(". ")
    return said, fix or "Correct that; docs/configuration.md has every key."


def _rules(settings: Settings) -> tuple[Catalogue | None, Line]:
    """The rules as configured, None where they cannot be used."""
    from expectations import loader
    from expectations.errors import RuleError

    try:
        catalogue = loader.load(settings.rules)
    except RuleError as error:
        said, *fix = str(error).splitlines()
        return None, Line("rules", "problem", said, " ".join(fix) or "Correct the suite or [rules]; docs/rules.md has every key.")
    states = {state: sum(rule.state == state for rule in catalogue.rules) for state in ("alert", "observe", "off")}
    told = ", ".join(f"{n} {state}" for state, n in states.items() if n)
    return catalogue, Line("rules", "ok", f"{len(catalogue.rules)} rules can be used: {told}", detail=states)


# The CRMs


def _ask(source: SourceSettings, *, writes: bool, say: Say | None) -> list[Diagnosis]:
    from importlib import import_module

    found: list[Diagnosis] = import_module(f"connectors.{source.crm}").diagnose(source, writes=writes, progress=say)
    return found


def _address(source: SourceSettings) -> str:
    return source.instance_url if source.crm == "salesforce" else source.base_url


def _with_rules(source: SourceSettings, lines: list[Line], catalogue: Catalogue | None, warehouse: Look) -> list[Line]:
    """The lines, each with the rules that cannot judge for what it says is not there, and since when that is so.

    Where the CRM could not be asked for its fields, what the last sync missed is told instead."""
    missing = {part for line in lines for part in line.detail.get("unreadable", ())}
    told = {(row["object"], row["field"]): row for row in warehouse.unreadable if row["source"] == source.name}
    if not any(line.area == "fields" for line in lines) and "Opportunity" not in missing:
        last = {f"{obj}.{name}" if name else obj for obj, name in told} - missing
        lines = [*lines, *(_of_last_sync(part) for part in sorted(last))]
        missing |= last
    blind = _blind(source, catalogue, missing)
    result = []
    for line in lines:
        parts = list(line.detail.get("unreadable", ()))
        rules = {rule: whole for part in parts for rule, whole in blind.get(part, {}).items()}
        row = next((told[key] for part in parts if (key := _key(part)) in told), None)
        said, detail = line.said, dict(line.detail)
        if row:
            said, detail["since"] = f"{said}, as since the sync of {row['since']:%Y-%m-%d}", row["since"]
        if rules:
            detail["rules"] = sorted(rules)
            said = f"{said}: {_named(rules)} cannot be judged (unknown)"
        result.append(replace(line, said=said, detail=detail))
    return result


def _of_last_sync(part: str) -> Line:
    fix = "See the lines above: once the CRM can be asked again, `plumbline doctor` says what to grant."
    return Line("last seen", "warning", f"{part.partition('.')[2] or part} could not be read", fix, {"unreadable": [part]}, "crm")


def _key(part: str) -> tuple[str, str | None]:
    """ "Opportunity.NextStep" and "deals.associations" as object and field: HubSpot's objects have dots of their own."""
    obj, _, name = part.rpartition(".")
    return (obj, name) if obj and part not in {"deals.associations", "deals.history"} else (part, None)


def _blind(source: SourceSettings, catalogue: Catalogue | None, missing: Collection[str]) -> dict[str, dict[str, bool]]:
    """Rules that cannot judge, by what is missing; True where none of their conditions can be told without it."""
    from warehouse.lineage import lost

    found: dict[str, dict[str, bool]] = {}
    for column, parts in lost(source.crm, missing, source.fields).items():
        for rule in catalogue.rules if catalogue else ():
            if rule.state != "off" and column in rule.reads:
                for part in parts:
                    before = found.setdefault(part, {}).get(rule.rule_id, False)
                    found[part][rule.rule_id] = before or rule.reads[column]
    return found


def _named(rules: Mapping[str, bool]) -> str:
    return ", ".join(rule if whole else f"{rule} in part" for rule, whole in sorted(rules.items(), key=lambda r: (not r[1], r[0])))


# What the warehouse knows of a source


def _stages(source: SourceSettings, warehouse: Look) -> list[Line]:
    if source.name not in warehouse.sources:
        return []
    rows = [row for row in warehouse.unmapped if row["source"] == source.name]
    if not rows:
        return [Line("stages", "ok", "every stage that deals stand in has a canonical meaning", cause="warehouse")]
    by_label: dict[str, list[Any]] = {}
    for row in rows:
        deals, amount = by_label.get(row["label"] or row["crm_stage"], (0, 0))
        by_label[row["label"] or row["crm_stage"]] = [deals + row["deals"], amount + (row["amount_home"] or 0)]
    told = "; ".join(f"{label!r}: {deals:,} deals" + (f", {amount:,.2f} open" if amount else "") for label, (deals, amount) in by_label.items())
    fix = f"Say what they stand for: plumbline stages confirm {source.name} {next(iter(by_label))!r} STAGE"
    facts = {"stages": [{"label": label, "deals": n, "amount_home": str(amount)} for label, (n, amount) in by_label.items()]}
    return [Line("stages", "warning", f"no canonical stage is known for {told}", fix, facts, "warehouse")]


def _values(source: SourceSettings, warehouse: Look) -> list[Line]:
    """Values of the last sync that are not what their column needs. The values themselves are people's: only where they stand is said."""
    rows = [row for row in warehouse.unparsed if row["source"] == source.name]
    if not rows:
        return []
    told = [f"{row['records']:,} of {row['property']} ({row['object']}, such as {row['example']})" for row in rows[:SHOWN]]
    said = "values that cannot be read and were left empty: " + ", ".join(told)
    said += f" and {len(rows) - SHOWN} more fields" if len(rows) > SHOWN else ""
    fix = "Correct them in the CRM: core.unparsed_value names every record, raw has the text as it came."
    facts = {"values": [{key: row[key] for key in ("object", "property", "column_name", "expected", "records", "example")} for row in rows]}
    return [Line("values", "warning", said, fix, facts, "warehouse")]


def _synced(source: SourceSettings, warehouse: Look, now: datetime) -> list[Line]:
    if warehouse.error or warehouse.busy or warehouse.outdated:
        return []
    row = warehouse.sources.get(source.name)
    if row is None:
        return [Line("last sync", "ok", f"never; `plumbline sync {source.name}` makes the first", cause="warehouse")]
    good = row["last_good_sync"]
    age = f"{_ago(now - good)}, {good:%Y-%m-%d %H:%M} UTC" if good else "never"
    facts = {key: row[key] for key in ("last_sync", "last_good_sync", "status")}
    if row["status"] != "done":
        said = f"the last one {row['status']}: {row['error'] or 'no reason recorded'}; the last good one was {age}"
        return [Line("last sync", "warning", said, f"Run `plumbline sync {source.name}` once that is mended.", facts, "warehouse")]
    if now - good > STALE:
        return [Line("last sync", "warning", age, f"Run `plumbline sync {source.name}`, or look why the schedule does not.", facts, "warehouse")]
    return [Line("last sync", "ok", age, None, facts, "warehouse")]


def _ago(span: timedelta) -> str:
    minutes = max(0, int(span.total_seconds() // 60))
    for size, unit in ((1440, "day"), (60, "hour")):
        if minutes >= 2 * size:
            return f"{minutes // size} {unit}s ago"
    return f"{minutes} minutes ago" if minutes >= 2 else "just now"


# The warehouse, and Prefect


def _look(settings: Settings) -> Look:
    from warehouse.look import look

    return look(settings.warehouse.path)


def _warehouse(settings: Settings, found: Look) -> list[Line]:
    from warehouse.look import unwritable

    lines = [_file(found)]
    for name, place in (
        ("[warehouse] published", settings.warehouse.published),
        ("[warehouse] landing", settings.warehouse.landing / "x"),
        ("[report] path", settings.report.path / "index.html"),
    ):
        if why := unwritable(place.absolute()):
            fix = "Give another place, or the right to write there."
            lines.append(Line("paths", "problem", f"{name} cannot be written: {why}", fix, cause="warehouse"))
    if found.cramped and not found.error:
        said = f"{_size(found.free)} are free beside a warehouse of {_size(found.size)}: a large load may not fit"
        lines.append(Line("disk", "warning", said, "Make room, or move [warehouse] path.", {"free": found.free, "size": found.size}, "warehouse"))
    return lines


def _file(found: Look) -> Line:
    facts = {"path": str(found.path), "size": found.size, "free": found.free, "version": found.version}
    if found.error:
        return Line("warehouse", "problem", f"{found.path} {found.error.what}".rstrip("."), found.error.fix, facts, "warehouse")
    if found.busy:
        said = f"{found.path} is being written by {found.busy}: stages and last syncs could not be looked at"
        return Line("warehouse", "warning", said, "Look again when that run is done.", {**facts, "holder": found.busy}, "warehouse")
    if not found.present:
        return Line("warehouse", "ok", f"there is none yet: the first `plumbline sync` makes {found.path}; {_size(found.free)} are free", None, facts)
    if found.outdated:
        said = f"{found.path} was written by an earlier Plumbline"
        return Line("warehouse", "warning", said, "Run `plumbline sync`: it brings the schema up to date.", facts, "warehouse")
    said = f"{found.path} can be read and written, schema {found.version}, {_size(found.size)}; {_size(found.free)} are free"
    return Line("warehouse", "ok", said, None, facts, "warehouse")


def _size(n: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:,.1f} {unit}"
    return f"{n / 1e3:,.0f} kB"


def prefect() -> Line:
    """Whether runs are recorded with Prefect. It is no problem when they are not: the warehouse keeps its own record."""
    url = prefect_api()
    if url is None:
        return Line("Prefect", "ok", "no API is configured: commands run in place and are recorded in the warehouse only")
    parts = urlsplit(url)
    host = f"{parts.scheme}://{(parts.hostname or '')}{f':{parts.port}' if parts.port else ''}"  # without what may stand before an @
    if prefect_answers(url):
        return Line("Prefect", "ok", f"the API at {host} answers")
    return Line("Prefect", "warning", f"the API at {host} does not answer: runs are recorded in the warehouse only",
                "Start it (`prefect server start`), or unset PREFECT_API_URL.")  # fmt: skip
