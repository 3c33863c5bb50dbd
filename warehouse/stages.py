"""Canonical stages: what each stage of each CRM stands for, and who said so. docs/stages.md is the guide for admins.

Order of authority: the CRM's own closed and won flags; the configuration; what somebody confirmed; a suggestion that is sure enough.
Everything else is `unmapped`: counted and shown, never guessed. A map that changes restates the past (docs/stages.md says why).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import yaml

from warehouse import raw

HERE = Path(__file__).parent
RANKS: dict[str, int | None] = {
    "prequalified": 0, "qualified": 1, "discovery": 2, "proposal": 3, "negotiation": 4, "closed_won": 5, "closed_lost": 5,
    "on_hold": None, "unmapped": None,
}  # fmt: skip
CRM_NAMES = {"salesforce": "Salesforce", "hubspot": "HubSpot"}
CLOSED = ("closed_won", "closed_lost")
SURE = 0.7  # below it a suggestion waits for somebody to confirm it

StageConfig = Mapping[str, Mapping[str, str]]

# Tables of raw that say which stages there are.
READ = {
    "salesforce": ("opportunity_stage", "record_type", "record_type_stages", "business_process"),
    "hubspot": ("pipeline",),
}


@dataclass(frozen=True)
class Suggestion:
    """stage: canonical, None where nothing can be said; confidence 0 to 1; reason in words."""

    stage: str | None
    confidence: float
    reason: str


@dataclass(frozen=True)
class StageRow:
    """A row of core.stage_map, but for updated_at."""

    source: str
    pipeline: str
    crm_stage: str
    label: str | None
    position: int | None
    probability: float | None
    forecast_category: str | None
    is_closed: bool | None
    is_won: bool | None
    is_active: bool
    stage: str = "unmapped"
    stage_rank: int | None = None
    origin: str = "unmapped"
    confidence: float | None = None
    suggestion: str | None = None
    reason: str | None = None


# ---- what admins and flows call -------------------------------------------------------------------------------------------------


def refresh_stage_map(con: duckdb.DuckDBPyConnection, source: str, config: StageConfig, now: datetime) -> bool:
    """Bring core.stage_map of `source` up to date with the CRM's stages and the configuration, and restate what it changes.

    config: [sources.X.stages]: pipeline name, id or "*" → stage by API name or label → canonical stage.
    Returns whether any stage means something else now. Raises ValueError for a canonical stage that does not exist.
    """
    from warehouse.migrate import transaction

    row = con.execute("select crm from core.source where source = $1", [source]).fetchone()
    if row is None:
        return False
    with transaction(con):
        con.execute("set variable source = $1", [source])
        con.execute("set variable crm = $1", [row[0]])
        moved = update_map(con, source, row[0], config, now, under_way=False)
        if moved:
            restate(con, source)
    return moved


def suggest(con: duckdb.DuckDBPyConnection, source: str | None = None) -> list[dict[str, Any]]:
    """The rows of `list_stages` that somebody should look at first: unmapped ones, then those that were only suggested."""
    rows = [row for row in list_stages(con, source) if row["origin"] in ("unmapped", "suggested", "default")]
    return sorted(rows, key=lambda r: (r["stage"] != "unmapped", r["confidence"] or 0, -(r["deals"] or 0)))


def list_stages(con: duckdb.DuckDBPyConnection, source: str | None = None) -> list[dict[str, Any]]:
    """core.stage_map with deals, open_deals, amount_home (open deals) of each, in the order of source, pipeline, position."""
    found = con.execute(
        """
        with counted as (
            select source, pipeline, crm_stage, count(*) as deals, count(*) filter (not is_closed) as open_deals,
                   sum(amount_home) filter (not is_closed) as amount_home
            from core.opportunity
            where not is_deleted
            group by source, pipeline, crm_stage
        )
        select m.*, coalesce(c.deals, 0) as deals, coalesce(c.open_deals, 0) as open_deals, c.amount_home
        from core.stage_map m
        left join counted c using (source, pipeline, crm_stage)
        where $1::varchar is null or m.source = $1
        order by m.source, m.pipeline, m.position nulls last, m.crm_stage
        """,
        [source],
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def confirm(con: duckdb.DuckDBPyConnection, source: str, pipeline: str, crm_stage: str, stage: str, now: datetime) -> dict[str, Any]:
    """Say what a stage stands for, for good, and restate its deals. pipeline: name, or "*" for all; crm_stage: API name or label.

    Returns {source, crm_stage, stage, pipelines, deals}. Raises ValueError, in words for the user, for a stage that is not there, that the
    CRM itself closes, or that the configuration maps.
    """
    from warehouse.migrate import transaction

    _check_canonical(stage)
    there = [row for row in list_stages(con, source) if pipeline == "*" or _same(pipeline, row["pipeline"])]
    rows = [row for row in there if _same(crm_stage, row["crm_stage"]) or _same(crm_stage, row["label"])]
    if not rows:
        known = ", ".join(sorted({row["label"] or row["crm_stage"] for row in there})) or "none: run `plumbline sync` first"
        where = "any pipeline" if pipeline == "*" else repr(pipeline)
        raise ValueError(f"{source} has no stage {crm_stage!r} in {where}. It has: {known}.")
    for row in rows:
        if row["origin"] == "flags":
            raise ValueError(f"{crm_stage!r} is a closed stage in the CRM ({row['stage']}), and the CRM's own flags always win.")
        if row["origin"] == "config":
            raise ValueError(f"{crm_stage!r} is mapped to {row['stage']} by the configuration. Change it there: [sources.{source}.stages].")
    if stage in CLOSED:
        raise ValueError(f"{crm_stage!r} is an open stage in the CRM: its deals cannot be {stage} before the CRM closes them.")
    with transaction(con):
        con.execute("set variable source = $1", [source])
        for row in rows:
            con.execute(
                "update core.stage_map set stage = $1, stage_rank = $2, origin = 'confirmed', updated_at = $3 "
                "where source = $4 and pipeline = $5 and crm_stage = $6",
                [stage, RANKS[stage], now, source, row["pipeline"], row["crm_stage"]],
            )
        restate(con, source)
    deals = sum(row["deals"] for row in rows)
    return {"source": source, "crm_stage": crm_stage, "stage": stage, "pipelines": [row["pipeline"] for row in rows], "deals": deals}


# ---- the map ------------------------------------------------------------------------------------------------------------------


def update_map(
    con: duckdb.DuckDBPyConnection, source: str, crm: str, config: StageConfig, now: datetime, *, under_way: bool = True
) -> bool:
    """Write core.stage_map of `source` from the CRM's definitions, the stages seen on deals, and the configuration.

    under_way: deals are being derived; the stages of the temporary tables `deal` and `stage_told` count as seen, too.
    Returns whether stages that were there before mean something else now.
    """
    if not under_way:
        raw.ensure_tables(con, (f"{crm}_{table}" for table in READ[crm]))
        _empty_seen(con)
    for stages in config.values():
        for stage in stages.values():
            _check_canonical(stage)
    _read_definitions(con, crm)
    old = {(row.pipeline, row.crm_stage): row for row in _rows(con, "core.stage_map", "where source = getvariable('source')")}
    new = []
    pipelines: dict[str, list[StageRow]] = {}
    for row in _rows(con, "stage_known", "order by pipeline, position nulls last, crm_stage"):
        pipelines.setdefault(row.pipeline, []).append(row)
    called = _called(con, pipelines)
    for name, rows in pipelines.items():
        suggestions = suggestions_for(crm, rows)
        for row, suggestion in zip(rows, suggestions, strict=True):
            wanted = _configured(config, called[name], row)
            new.append(_decided(row, suggestion, wanted, old.get((row.pipeline, row.crm_stage))))
    changed = [row for row in new if old.get((row.pipeline, row.crm_stage)) != row]
    if not changed:
        return False
    _write(con, changed, now)
    # What is read off the map beside the stage itself: labels, default probabilities, and flags.
    told = ("stage", "label", "probability", "is_closed", "is_won")
    known = [(before, row) for row in changed if (before := old.get((row.pipeline, row.crm_stage)))]
    return any(getattr(before, name) != getattr(row, name) for before, row in known for name in told)


def note_versions(con: duckdb.DuckDBPyConnection) -> None:
    """Keep what the CRM says of each stage now in core.stage_version. To be called after `update_map`, in the same load."""
    _run(con, "core/stage_version.sql")


def restate(con: duckdb.DuckDBPyConnection, source: str) -> None:
    """Say the stages of deals, events and versions again, by the map in force. Runs inside the caller's transaction."""
    con.execute("set variable source = $1", [source])
    _run(con, "core/restate.sql", "core/stage_event.sql", "core/version_stage.sql")
    con.execute("""
        update core.opportunity_version v set stage = n.stage, is_closed = n.is_closed, is_won = n.is_won
        from new_version n
        where v.opportunity_key = n.opportunity_key and v.valid_from = n.valid_from
          and (v.stage, v.is_closed, v.is_won) is distinct from (n.stage, n.is_closed, n.is_won);

        update core.stage_event e set from_stage = n.from_stage, to_stage = n.to_stage, kind = n.kind
        from new_stage_event n
        where e.opportunity_key = n.opportunity_key and e."at" = n."at" and e.to_crm_stage = n.to_crm_stage
          and e.from_crm_stage is not distinct from n.from_crm_stage
          and (e.from_stage, e.to_stage, e.kind) is distinct from (n.from_stage, n.to_stage, n.kind)
    """)


def _decided(row: StageRow, suggestion: Suggestion, wanted: str | None, before: StageRow | None) -> StageRow:
    told = replace(
        row, suggestion=suggestion.stage, confidence=round(suggestion.confidence, 2), reason=suggestion.reason
    )
    if row.is_closed:
        stage, origin = ("closed_won" if row.is_won else "closed_lost"), "flags"
    elif wanted in CLOSED:
        stage, origin = "unmapped", "config"
        told = replace(told, reason=f"the configuration says {wanted}, but the CRM has this stage open")
    elif wanted:
        stage, origin = wanted, "config"
    elif before and before.origin == "confirmed":
        stage, origin = before.stage, "confirmed"
    elif before and before.origin in ("default", "suggested") and _same(before.label, row.label) and not before.is_closed:
        stage, origin = before.stage, before.origin  # a stage that appears beside it is no reason to unmap it
    elif suggestion.stage and suggestion.stage not in CLOSED and suggestion.confidence >= SURE:
        stage, origin = suggestion.stage, "default" if suggestion.confidence >= 1 else "suggested"
    else:
        stage, origin = "unmapped", "unmapped"
    return replace(told, stage=stage, stage_rank=RANKS[stage], origin=origin)


def _called(con: duckdb.DuckDBPyConnection, pipelines: Iterable[str]) -> dict[str, list[str]]:
    """How a configuration may call each pipeline: by its name, its id, or a name that it had before and that no other has now."""
    called = {name: [name] for name in pipelines}
    rows = con.execute("""
        select pipeline, pipeline_id, former_names from core.pipeline where source = getvariable('source')
        union all
        select pipeline, pipeline_id, NULL from pipeline_definition
    """).fetchall()
    taken = {name.strip().casefold() for name in (*called, *(row[0] for row in rows))}
    for name, key, former in rows:
        if name in called:
            called[name] += [key] if key else []
            called[name] += [old for old in former or () if old.strip().casefold() not in taken]
    return called


def _configured(config: StageConfig, called: Iterable[str], row: StageRow) -> str | None:
    """The canonical stage that the configuration gives: the pipeline's own table before "*"."""
    tables = [stages for name, stages in config.items() if name != "*" and any(_same(name, other) for other in called)]
    for stages in [*tables, config.get("*", {})]:
        for name, stage in stages.items():
            if _same(name, row.crm_stage) or _same(name, row.label):
                return stage
    return None


def _check_canonical(stage: str) -> None:
    if stage not in RANKS:
        raise ValueError(f"{stage!r} is no canonical stage. Use one of: {', '.join(RANKS)}.")


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one.strip().casefold() == other.strip().casefold()


def _empty_seen(con: duckdb.DuckDBPyConnection) -> None:
    """Outside of a load there are no deals under way."""
    con.execute("""
        create or replace temp table deal as
        select opportunity_id, pipeline, crm_stage, is_closed, is_won from core.opportunity limit 0;
        create or replace temp table stage_told (opportunity_id varchar, "at" timestamptz, seq varchar, crm_stage varchar);
    """)


def _read_definitions(con: duckdb.DuckDBPyConnection, crm: str) -> None:
    _run(con, "core/stage_seen.sql", f"{crm}/pipeline.sql", f"{crm}/stage_definition.sql")
    if crm == "salesforce":
        _run(con, "core/stage_dropped.sql")
        if con.execute("from stage_dropped limit 1").fetchone():
            _run(con, "core/stage_drop.sql")
    _run(con, "core/stage_known.sql")


def _run(con: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        con.execute((HERE / "sql" / name).read_text(encoding="utf-8"))


def _rows(con: duckdb.DuckDBPyConnection, table: str, rest: str) -> list[StageRow]:
    names = list(StageRow.__dataclass_fields__)
    there = {row[0] for row in con.execute(f"describe {table}").fetchall()}
    numbers = {"probability", "confidence"}
    columns = ", ".join(f"{n}::double" if n in numbers else n for n in names if n in there)
    found = con.execute(f"select {columns} from {table} {rest}").fetchall()
    return [StageRow(**dict(zip((n for n in names if n in there), row, strict=True))) for row in found]


def _write(con: duckdb.DuckDBPyConnection, rows: list[StageRow], now: datetime) -> None:
    document = json.dumps([asdict(row) for row in rows])
    kinds = {"position": "INTEGER", "stage_rank": "INTEGER", "is_closed": "BOOLEAN", "is_won": "BOOLEAN", "is_active": "BOOLEAN"}
    kinds |= {"probability": "DECIMAL(7,6)", "confidence": "DECIMAL(3,2)"}
    shape = json.dumps([{name: kinds.get(name, "VARCHAR") for name in StageRow.__dataclass_fields__}])
    con.execute(f"create or replace temp table new_stage as select unnest(from_json($1::json, '{shape}'), recursive := true)", [document])
    con.execute("""
        delete from core.stage_map m using new_stage n where m.source = n.source and m.pipeline = n.pipeline and m.crm_stage = n.crm_stage
    """)
    con.execute("insert into core.stage_map by name select *, $1 as updated_at from new_stage", [now])


# ---- suggestions --------------------------------------------------------------------------------------------------------------


@cache
def _names() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((HERE / "synonyms.yaml").read_text(encoding="utf-8"))
    phrases = [(normalise(phrase), stage) for stage, words in document["phrases"].items() for phrase in words]
    document["phrases"] = sorted(phrases, key=lambda pair: -len(pair[0]))
    return document


def normalise(label: str) -> str:
    """A label as words: NFKD without accents, small letters, no numbering in front ("3 - ", "S2:", "04_"), no percentages,
    no punctuation."""
    text = "".join(c for c in unicodedata.normalize("NFKD", label.strip()) if not unicodedata.combining(c)).casefold()
    text = text.replace("ø", "o").replace("æ", "ae").replace("ß", "ss").replace("ł", "l").replace("đ", "d")
    text = re.sub(r"\(?\d+\s*%\)?", " ", text)
    if not re.match(r"stage\s*0\b", text):
        text = re.sub(r"^\s*(?:(?:stage|phase|step|stufe|etape|s|p)?\s*\d+[a-z]?|[a-z])\s*[-_.:)/|]+\s*|^\s*\d+\s+", "", text)
    return re.sub(r"[\W_]+", " ", text).strip()


def suggestions_for(crm: str, rows: list[StageRow]) -> list[Suggestion]:
    """A suggestion for each stage of one pipeline, given in the order of the pipeline (docs/stages.md gives the steps)."""
    found = [_suggestion(crm, row, index, rows) for index, row in enumerate(rows)]
    # Ranks should not fall along the pipeline: where they do, both neighbours are less sure and say so.
    ranked = [(i, RANKS[s.stage]) for i, s in enumerate(found) if s.stage and not rows[i].is_closed and RANKS[s.stage] is not None]
    for (i, rank), (j, following) in pairwise(ranked):
        if (following or 0) < (rank or 0) and rows[i].position is not None and rows[j].position is not None:
            for k, other in ((i, j), (j, i)):
                if found[k].confidence < 1:
                    words = f"{found[k].reason}; out of order with {rows[other].label or rows[other].crm_stage!r}"
                    found[k] = Suggestion(found[k].stage, min(found[k].confidence, 0.6), words)
    return found


def _suggestion(crm: str, row: StageRow, index: int, rows: list[StageRow]) -> Suggestion:
    label = row.label or row.crm_stage
    if row.is_closed:
        return Suggestion("closed_won" if row.is_won else "closed_lost", 1.0, "the CRM's own flag")
    names = _names()
    # An id is no evidence: portals rename the default stages and keep their ids.
    if default := names["defaults"][crm].get(label):
        return Suggestion(default, 1.0, f"a default stage of {CRM_NAMES[crm]}")
    by_position = _by_position(row, index, rows)
    text = f" {normalise(label)} "
    for stage, phrases in names["first"].items():
        if any(f" {phrase} " in text for phrase in phrases):
            return Suggestion(stage, 0.6, "says that it is out, but the CRM has it open")
    for phrase, stage in names["phrases"]:
        spaced = f" {phrase} " in text or (not phrase.isascii() and phrase in text)
        if not spaced:
            continue
        if any(f" {word} " in text for word in names["not_yet"].get(stage, ())):
            return Suggestion("discovery", 0.9, f"says {phrase!r}, but that it is still to come")
        if stage in CLOSED:
            return Suggestion(stage, 0.6, f"says {phrase!r}, but the CRM has it open")
        if by_position and stage != "on_hold" and abs((RANKS[stage] or 0) - (RANKS[by_position] or 0)) > 1:
            return Suggestion(stage, 0.6, f"says {phrase!r}, but stands where {by_position} would")
        return Suggestion(stage, 0.9, f"says {phrase!r}")
    if by_position:
        return Suggestion(by_position, 0.4, "by its place and probability only")
    return Suggestion(None, 0.0, "nothing known about it")


def _by_position(row: StageRow, index: int, rows: list[StageRow]) -> str | None:
    if row.probability is None or row.position is None:
        return None
    p = row.probability
    if p < 0.15 and all(other.is_closed for other in rows[:index]):
        return "prequalified"
    for limit, stage in ((0.25, "qualified"), (0.5, "discovery"), (0.75, "proposal")):
        if p <= limit:
            return stage
    return "negotiation"
