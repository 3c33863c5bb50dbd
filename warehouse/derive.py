"""raw → core for one source: which deals are touched, what they should be, and only the rows that differ are written.

The SQL is under sql/<crm>/ (what each CRM says, in one shape) and sql/core/ (what follows from it). The files speak of session
variables (`getvariable('now')`) and of the temporary tables that the files before them made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from warehouse import raw, stages
from warehouse.apply import apply_groups, apply_rows
from warehouse.business import Business, state_timezone
from warehouse.writeback import FIELDS

HERE = Path(__file__).parent / "sql"
# Raise it when the SQL derives other values from the same records: every source is then derived anew.
DERIVATION = 9
DEALS = {"salesforce": "Opportunity", "hubspot": "deals"}
ACCOUNTS = {"salesforce": "Account", "hubspot": "companies"}
# What fields of these types hold: a value that is nothing of the kind is noted. HubSpot's names, then Salesforce's.
EXPECTED = {
    "number": "number", "date": "date", "datetime": "instant", "bool": "boolean",
    "double": "number", "currency": "number", "percent": "number", "int": "number", "long": "number", "boolean": "boolean",
}  # fmt: skip

# Tables of raw that the SQL reads, there or not: a CRM may refuse any of them.
TABLES = {
    "salesforce": (
        "opportunity", "opportunity_history", "opportunity_field_history", "opportunity_contact_role", "opportunity_stage", "task", "event",
        "account", "user", "user_role", "record_type", "record_type_stages", "business_process", "currency_type", "dated_conversion_rate",
    ),
    "hubspot": ("deal", "deal_history", "deal_association", "company", "owner", "pipeline", "property", "exchange_rate"),
}  # fmt: skip

# Fields with a column of their own: not repeated in `custom`.
OWN_COLUMN = {
    "salesforce": (
        "Id", "Name", "AccountId", "OwnerId", "RecordTypeId", "Type", "StageName", "IsClosed", "IsWon", "IsDeleted", "Amount",
        "CurrencyIsoCode", "Probability", "ForecastCategoryName", "ForecastCategory", "CreatedDate", "CloseDate", "LastStageChangeDate",
        "Description", "NextStep", "SystemModstamp",
    ),
    "hubspot": (
        "hs_object_id", "dealname", "amount", "amount_in_home_currency", "deal_currency_code", "closedate", "createdate", "hs_createdate",
        "dealstage", "pipeline", "dealtype", "description", "hubspot_owner_id", "hs_next_step", "hs_deal_stage_probability",
        "hs_manual_forecast_category", "hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost", "hs_v2_date_entered_current_stage",
        "num_associated_contacts", "closed_lost_reason", "notes_next_activity_date", "hs_lastmodifieddate",
    ),
}  # fmt: skip

# Fields that deal.sql reads though `custom` holds them.
ALSO_READ = ("HasOpportunityLineItem", "LastActivityDate")

# Fields that say nothing of the deal: stamps that every write moves, ours too, and numbers that time or the CRM moves.
VOLATILE = {
    "salesforce": re.compile(
        r"LastModified.*|LastViewedDate|LastReferencedDate|.*InDays|AgeInDays|HasOpenActivity|HasOverdueTask|Fiscal.*|IqScore|ExpectedRevenue"
    ),
    "hubspot": re.compile(
        r"hs_updated_by_user_id|hs_(v2_)?(cumulative_time|latest_time|time)_in_.*|hs_v2_.*|days_to_close|hs_days_.*|hs_.*_(duration|time_.*)|"
        r"hs_is_stalled.*|hs_deal_score.*|hs_.*probability.*|hs_.*projected.*|hs_.*forecast_amount.*|hs_.*_in_home_currency|hs_object_source.*|"
        r"hs_next_meeting.*|hs_number_of_overdue_tasks|num_.*notes.*|hs_num_.*|hs_.*_last_updated.*|hs_read_only|hs_all_.*|hs_sales_email_last.*|"
        r"hs_latest_.*|hs_lastmodified.*"
    ),
}
TEMPORARY = {
    "account_survivor", "activity_fact", "applied", "changer", "close_told", "deal", "deal_survivor", "delivered", "delta", "differing", "fact",
    "field_gone", "field_told", "fields", "first_told", "heir", "in_scope", "landed", "live", "new_account", "new_activity", "new_contact_role",
    "new_crm_flag", "new_exchange_rate", "new_field_option", "new_opportunity", "new_owner", "new_pipeline", "new_seen", "new_stage",
    "new_stage_event", "new_unparsed", "new_version", "next_step_told", "pipeline_clean", "pipeline_definition", "pipeline_renamed",
    "pipeline_stage", "present", "process_told", "rate_moved", "rate_of_deal", "record_type", "refreshed", "renamed_stage", "renamed_version",
    "restated", "seen", "seen_before", "stage_alias", "stage_change", "stage_definition", "stage_dropped", "stage_flag", "stage_known",
    "stage_move", "stage_now", "stage_of_org", "stage_seen", "stage_stated", "stage_told", "state_before", "state_told", "told", "told_field",
    "told_source", "touched", "touched_account", "touched_deal", "touched_table", "unparsed", "version_state",
}  # fmt: skip
OURS = re.compile(r"plumbline_.*", re.IGNORECASE)
# From which day on the rates of a currency are others than before: a deal is converted by the rate of its close date.
RATE_MOVED = """
    select currency, min(valid_from) as since
    from (
        (select currency, valid_from, rate from new_exchange_rate
         except select currency, valid_from, rate from core.exchange_rate where source = getvariable('source'))
        union all
        (select currency, valid_from, rate from core.exchange_rate where source = getvariable('source')
         except select currency, valid_from, rate from new_exchange_rate)
    )
    group by currency
"""
# Tables of raw that define pipelines and stages.
DEFINITIONS = {
    "salesforce_record_type", "salesforce_record_type_stages", "salesforce_business_process", "salesforce_opportunity_stage", "hubspot_pipeline",
}  # fmt: skip
PIPELINE_KEY = "source || ':' || coalesce(pipeline_id, '')"


@dataclass(frozen=True)
class Settings:
    """What derivation depends on besides the records. When any of it changes, every row of the source is derived again.

    readable: objects of the CRM that could be read, so that "none" and "unknown" stay apart. own_ids: of the user or app by whom Plumbline
    itself signs in.
    """

    source: str
    crm: str
    business: Business
    fields: dict[str, str] = field(default_factory=dict)
    integration_users: list[str] = field(default_factory=list)
    own_ids: list[str] = field(default_factory=list)
    record_url: str | None = None
    org_currency: str | None = None
    readable: list[str] = field(default_factory=list)

    def document(self) -> str:
        return json.dumps({"derivation": DERIVATION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_document(cls, text: str) -> Settings:
        told = json.loads(text)
        told.pop("derivation")
        return cls(**{**told, "business": Business(**told["business"])})


@dataclass
class Outcome:
    """What derivation changed: counts measured on core.opportunity, and, per object, how many values of which field could not be read of
    the records that were derived."""

    counts: raw.Counts
    unparsed: dict[str, dict[str, int]] = field(default_factory=dict)


def prepare(con: duckdb.DuckDBPyConnection, crm: str) -> None:
    """Before raw is loaded: the tables that the SQL will read, and empty lists of what is touched."""
    _ensure_tables(con, crm)
    con.execute("""
        create or replace temp table touched_deal (id varchar);
        create or replace temp table touched_account (id varchar);
        create or replace temp table touched_table (name varchar);
        create or replace temp table delivered (id varchar);
        create or replace temp table live (table_name varchar, id varchar);
        create or replace temp table refreshed (id varchar);
    """)


def _ensure_tables(con: duckdb.DuckDBPyConnection, crm: str) -> None:
    raw.ensure_tables(con, (f"{crm}_{table}" for table in TABLES[crm]))


def touch(con: duckdb.DuckDBPyConnection, table: str, *, delivered: bool, anew: bool = False) -> None:
    """Note what `delta` (left by raw.merge) touches. delivered: `landed` holds deals that the CRM sent because they may have changed.
    anew: derive every deal of `landed` again, also where its record is the one that is here."""
    if delivered:
        con.execute("insert into delivered select id from landed")
    if anew and table in {"salesforce_opportunity", "hubspot_deal"}:
        con.execute("insert into touched_deal select id from landed")
    changed = con.execute("select count(*) from delta").fetchone()
    if not changed or not changed[0]:
        return
    con.execute("insert into touched_table values ($1)", [table])
    if table in {"salesforce_opportunity", "hubspot_deal"}:
        con.execute("insert into touched_deal select id from delta")
    elif table in {"salesforce_account", "hubspot_company"}:
        con.execute("insert into touched_account select id from delta")
    else:
        con.execute("insert into touched_deal select distinct unnest([parent_id, old_parent_id]) from delta")


def derive(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    *,
    now: datetime,
    stage_config: Mapping[str, Mapping[str, str]],
    done: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Bring core up to date with raw for everything that was touched since `prepare`. Runs inside the caller's transaction.

    Days and money mean the same for all sources: when the business moves, those that are not being loaded follow at once.
    """
    con.execute("create or replace temp table rate_moved (currency varchar, since date)")
    others = _others(con, settings)
    _derive_their_rates(con, others, settings, now=now)
    changed = {row[0] for row in con.execute("select distinct name from touched_table").fetchall()}
    before = derivation_of(con, settings.source)
    everything = before is None or before != settings.document()
    _set_variables(con, settings, now=now)
    unparsed = _derive_people(con, settings, changed, everything=everything)
    done("people")
    rates_moved = _derive_rates(con, settings, changed, everything=everything)
    done("rates")
    _derive_options(con, settings.crm, changed, everything=everything)
    defined = everything or bool(changed & DEFINITIONS)
    if defined:
        _derive_pipelines(con, settings.crm)
    _choose_deals(con, settings, changed, everything=everything, rates_moved=rates_moved)
    outcome = _derive_deals(con, settings, now=now, stage_config=stage_config, defined=defined, done=done)
    outcome.unparsed.update(unparsed)
    _refresh_custom(con, settings.crm)
    _note_derivation(con, settings)
    if rates_moved or any(other.business != settings.business for other in others):
        _derive_others(con, others, settings, now=now)
        done("other sources")
    state_timezone(con)
    return outcome


def forget(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the temporary tables of a load: they hold memory as long as the connection lives."""
    found = con.execute("select table_name from duckdb_tables() where temporary and database_name = 'temp'").fetchall()
    for name in sorted({row[0] for row in found} & TEMPORARY):
        con.execute(f"drop table temp.{name}")


def derivation_of(con: duckdb.DuckDBPyConnection, source: str) -> str | None:
    """The settings that the rows of `source` were derived with, as Settings.document; None before the first load."""
    row = con.execute("select derivation::varchar from core.source where source = $1", [source]).fetchone()
    return row[0] if row else None


# ---- session ------------------------------------------------------------------------------------------------------------------


def _set_variables(con: duckdb.DuckDBPyConnection, settings: Settings, *, now: datetime) -> None:
    business = settings.business
    custom, hashed = _patches(con, settings)
    typed = _typed(con, settings)
    variables: dict[str, Any] = {
        "source": settings.source,
        "crm": settings.crm,
        "now": now,
        "business_date": business.date_of(now),
        "timezone": business.timezone,
        "home_currency": business.currency,
        "org_currency": settings.org_currency or business.currency,
        "record_url": settings.record_url,
        "activity_capability": _activity_capability(con, settings),
        "contacts_readable": "OpportunityContactRole" in settings.readable,
        "line_items_readable": _has_field(con, settings, "hs_num_of_associated_line_items"),
        "evidence_names": list(settings.fields),
        "evidence_paths": [_path(name) for name in settings.fields.values()],
        "deal_object": DEALS[settings.crm],
        "typed_names": [name for name, _, _ in typed],
        "typed_fields": [told for _, told, _ in typed],
        "typed_paths": [_path(told) for _, told, _ in typed],
        "typed_kinds": [kind for _, _, kind in typed],
        "lost_reason_path": _path(settings.fields["lost_reason"]) if "lost_reason" in settings.fields else None,
        "custom_patch": custom,
        "hash_patch": hashed,
        # Salesforce ids are the same in their first 15 characters, however people copied them.
        "integration_ids": [user[:15] for user in settings.integration_users],
        "own_ids": [own[:15] for own in settings.own_ids],
    }
    for name, value in variables.items():
        cast = "::varchar[]" if isinstance(value, list) else "::varchar" if value is None else ""
        con.execute(f"set variable {name} = $1{cast}", [value])


def _activity_capability(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """How much of people's activities the source lets us see: full, tasks_only or none."""
    if settings.crm == "salesforce":
        if {"Task", "Event"} <= set(settings.readable):
            return "full"
        return "tasks_only" if "Task" in settings.readable or _has_field(con, settings, "LastActivityDate") else "none"
    return "full" if _has_field(con, settings, "notes_last_updated") else "none"


def _has_field(con: duckdb.DuckDBPyConnection, settings: Settings, name: str) -> bool:
    row = con.execute(
        "select count(*) from core.field where source = $1 and object = $2 and name = $3", [settings.source, DEALS[settings.crm], name]
    ).fetchone()
    return bool(row and row[0])


def _typed(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[tuple[str, str, str]]:
    """(evidence, field, what it holds) of the configured fields that are more than text in the CRM."""
    found = con.execute(
        "select name, lower(type) from core.field where source = $1 and object = $2 and type is not null", [settings.source, DEALS[settings.crm]]
    )
    types = dict(found.fetchall()) if settings.fields else {}
    return [(name, told, EXPECTED[types[told]]) for name, told in sorted(settings.fields.items()) if types.get(told) in EXPECTED]


def _patches(con: duckdb.DuckDBPyConnection, settings: Settings) -> tuple[str, str]:
    """JSON merge patches that take fields out of a payload: for `custom`, and for the hash that tells a change from an echo."""
    calculated = dict(_fields_of(con, settings.source, settings.crm))
    own = dict.fromkeys([*OWN_COLUMN[settings.crm], *FIELDS[settings.crm].values(), *filter(OURS.fullmatch, calculated)])
    moving = dict.fromkeys(_moving(calculated, settings.crm, settings.fields.values()))
    return json.dumps(own), json.dumps({**own, **moving})


def light_fields(con: duckdb.DuckDBPyConnection, source: str, mapped: Iterable[str], told: Iterable[Mapping[str, Any]]) -> list[str]:
    """Fields of Salesforce deals whose values stand in `custom` and nowhere else, and make no change of the deal: when nothing but they
    moved, there is nothing to derive. mapped: fields of the configuration, which are evidence. told: fields as a manifest has them,
    which may be so new that core.field does not know them."""
    calculated = dict(_fields_of(con, source, "salesforce")) | {f["name"]: bool(f.get("calculated")) for f in told}
    read = {*OWN_COLUMN["salesforce"], *ALSO_READ, *FIELDS["salesforce"].values()}
    return [name for name in _moving(calculated, "salesforce", mapped) if name not in read and not OURS.fullmatch(name)]


def _moving(calculated: Mapping[str, bool], crm: str, mapped: Iterable[str]) -> list[str]:
    """Fields that move by themselves: formulas, parents' fields (Account.Name), what time and the CRM move. A field that the
    configuration maps is never one: somebody counts on its meaning."""
    moving = [name for name, formula in calculated.items() if formula or "." in name or VOLATILE[crm].fullmatch(name)]
    return sorted(set(moving) - set(mapped))


def _fields_of(con: duckdb.DuckDBPyConnection, source: str, crm: str) -> list[tuple[str, bool]]:
    """(name, is_calculated) of the deals' fields, those among them that are hidden by now: payloads hold their last values."""
    return con.execute(
        """
        select name, coalesce(is_calculated, false) from core.field where source = $1 and object = $2
        union all
        select name, coalesce(is_calculated, false) from core.field_lost where source = $1 and object = $2
        order by name
        """,
        [source, DEALS[crm]],
    ).fetchall()


# ---- people, accounts, rates --------------------------------------------------------------------------------------------------


def _derive_people(con: duckdb.DuckDBPyConnection, settings: Settings, changed: set[str], *, everything: bool) -> dict[str, dict[str, int]]:
    """Returns the values of accounts that could not be read, as Outcome.unparsed."""
    if everything or changed & {"salesforce_user", "salesforce_user_role", "hubspot_owner"}:
        _run(con, f"{settings.crm}/owner.sql")
        apply_rows(con, "core.owner", "new_owner", key="owner_key", scope="source = getvariable('source')")
        con.execute("""
            insert into touched_deal
            select o.opportunity_id from core.opportunity o join applied on applied.key = o.source || ':' || o.owner_id
            where o.source = getvariable('source')
        """)
        if settings.crm == "hubspot":
            _run(con, "hubspot/changer.sql", "hubspot/changer_named.sql")
    con.execute("create or replace temp table delta as select distinct id from touched_account")
    _run(con, f"{settings.crm}/account.sql")
    apply_rows(con, "core.account", "new_account", key="account_key", scope="false")
    con.execute("""
        insert into touched_deal
        select o.opportunity_id from core.opportunity o join applied on applied.key = o.source || ':' || o.account_id
        where o.source = getvariable('source')
    """)
    if settings.crm != "hubspot":  # Salesforce delivers numbers as numbers
        return {}
    _run(con, "hubspot/account_unparsed.sql")
    return _note_unparsed(con, f"object = '{ACCOUNTS[settings.crm]}' and record_id in (select id from delta)")


def _derive_rates(con: duckdb.DuckDBPyConnection, settings: Settings, changed: set[str], *, everything: bool) -> bool:
    """core.exchange_rate of the source. Returns whether any rate moved."""
    if settings.crm == "salesforce" and not (everything or changed & {"salesforce_currency_type", "salesforce_dated_conversion_rate"}):
        return False
    _run(con, "core/value.sql", f"{settings.crm}/exchange_rate.sql")  # HubSpot's each time: a rate may have been told before its day
    key = "source || ':' || currency || ':' || valid_from::varchar"
    con.execute("insert into rate_moved " + RATE_MOVED)
    return apply_rows(con, "core.exchange_rate", "new_exchange_rate", key=key, scope="source = getvariable('source')") > 0


def _derive_options(con: duckdb.DuckDBPyConnection, crm: str, changed: set[str], *, everything: bool) -> None:
    """core.field_option of the source."""
    if crm == "hubspot" and (everything or "hubspot_property" in changed):
        _run(con, "hubspot/field_option.sql")
        key = "concat_ws(chr(31), source, object, name, value)"
        apply_rows(con, "core.field_option", "new_field_option", key=key, scope="source = getvariable('source')")


def _derive_pipelines(con: duckdb.DuckDBPyConnection, crm: str) -> None:
    """core.pipeline as the CRM defines it. What calls a pipeline by its name follows when the CRM renamed it; its deals come later."""
    _run(con, f"{crm}/pipeline.sql", "core/pipeline.sql")
    renamed = con.execute("select count(*) from pipeline_renamed").fetchone()
    if renamed and renamed[0]:
        _run(con, "core/pipeline_rename.sql")
    apply_rows(con, "core.pipeline", "new_pipeline", key=PIPELINE_KEY, scope="false")


def _note_stages(con: duckdb.DuckDBPyConnection) -> None:
    """After the deals and the stage map: the pipelines that deals are in, and what the CRM says of each stage from now on."""
    _run(con, "core/pipeline.sql", "core/pipeline_seen.sql")
    apply_rows(con, "core.pipeline", "new_pipeline", key=PIPELINE_KEY, scope="source = getvariable('source')")
    stages.note_versions(con)


# ---- deals --------------------------------------------------------------------------------------------------------------------


def _choose_deals(
    con: duckdb.DuckDBPyConnection, settings: Settings, changed: set[str], *, everything: bool, rates_moved: bool
) -> None:
    """touched: the deals to derive again, each once. deal_survivor: deals that HubSpot merged into another one."""
    table = f"raw.{settings.crm}_{'opportunity' if settings.crm == 'salesforce' else 'deal'}"
    if everything or changed & {"salesforce_record_type", "hubspot_pipeline"}:
        con.execute(f"insert into touched_deal select id from {table} where source = getvariable('source')")
    elif rates_moved:
        con.execute("""
            insert into touched_deal
            select o.opportunity_id
            from core.opportunity o
            join rate_moved r
              on r.currency = o.currency
             and (coalesce(o.close_date, getvariable('business_date')) >= r.since or (getvariable('crm') = 'hubspot' and not o.is_closed))
            where o.source = getvariable('source')
            union all
            select o.opportunity_id
            from core.opportunity_version v
            join rate_moved r on r.currency = v.currency and coalesce(v.close_date, getvariable('business_date')) >= r.since
            join core.opportunity o using (opportunity_key)
            where o.source = getvariable('source')
        """)
    con.execute("insert into touched_deal select opportunity_id from core.opportunity where source = getvariable('source') "
                "and recheck_at <= getvariable('now')")
    if settings.crm == "salesforce" and "salesforce_opportunity_stage" in changed:
        _run(con, "salesforce/stage_flag.sql", "salesforce/stage_flag_moved.sql")
    if settings.crm == "hubspot":
        _run(con, "hubspot/deal_survivor.sql")
        con.execute("insert into touched_deal select id from deal_survivor")
    # What belonged to a deal may belong to something else now, and what comes may belong to a deal that we do not have.
    con.execute(f"create or replace temp table touched as select distinct id from touched_deal "
                f"semi join (from {table} where source = getvariable('source')) using (id)")


def _derive_deals(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    *,
    now: datetime,
    stage_config: Mapping[str, Mapping[str, str]] | None,
    defined: bool = False,
    done: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """defined: what the CRM says of its pipelines and stages may have changed."""
    crm = settings.crm
    touched = con.execute("select count(*) from touched").fetchone()
    if not touched or not touched[0]:
        return _derive_nothing(con, settings, now=now, stage_config=stage_config, defined=defined)
    if crm == "salesforce":
        _run(con, "salesforce/stage_flag.sql")
    _run(con, "core/value.sql", f"{crm}/changer.sql", f"{crm}/deal.sql", f"{crm}/history.sql", "core/unparsed.sql", "core/seen.sql")
    con.execute("drop table fields; drop table told")
    done("deals read")
    moved = False
    if stage_config is not None:
        moved = stages.update_map(con, settings.source, crm, stage_config, now)
    _run(con, "core/stage_move.sql", "core/stage_event.sql", f"{crm}/contact_role.sql", f"{crm}/activity.sql", "core/history.sql")
    _run(con, "core/opportunity.sql", "core/crm_flag.sql")
    done("deals derived")
    counts = _count(con)
    _run(con, "core/version.sql", *(["hubspot/version_merged.sql"] if crm == "hubspot" else []), "core/version_stage.sql")
    done("versions derived")
    # In the order in which readers join them; all of it is one transaction.
    con.execute("create or replace temp table in_scope as select opportunity_key from new_opportunity")
    scope = "opportunity_key in (select opportunity_key from in_scope)"
    apply_rows(con, "core.opportunity", "new_opportunity", key="opportunity_key", scope=scope)
    apply_groups(con, "core.opportunity_version", "new_version", group="opportunity_key", key=("valid_from",), within="in_scope")
    # A deal may come back to a stage within a second: where it came from tells the two moves apart.
    move = "concat(opportunity_key, \"at\", from_crm_stage, '>', to_crm_stage)"
    apply_rows(con, "core.stage_event", "new_stage_event", key=move, scope=scope)
    apply_rows(con, "core.contact_role", "new_contact_role", key="opportunity_key || contact_id", scope=scope)
    apply_rows(con, "core.activity", "new_activity", key="activity_key", scope=scope)
    apply_rows(con, "core.crm_flag", "new_crm_flag", key="opportunity_key", scope=scope)
    if moved:
        stages.restate(con, settings.source)
    if stage_config is not None:
        _note_stages(con)
    return Outcome(counts, _note_unparsed(con, f"object <> '{ACCOUNTS[crm]}' and record_id in (select id from touched)"))


def _note_unparsed(con: duckdb.DuckDBPyConnection, scope: str) -> dict[str, dict[str, int]]:
    """core.unparsed_value as new_unparsed says it is of the records in `scope`. Returns the values per object and field."""
    key = "concat_ws(chr(31), source, object, record_id, property, column_name)"
    apply_rows(con, "core.unparsed_value", "new_unparsed", key=key, scope=f"source = getvariable('source') and {scope}")
    found: dict[str, dict[str, int]] = {}
    counted = "select object, property, count(distinct record_id) from new_unparsed group by all order by all"
    for obj, name, values in con.execute(counted).fetchall():
        found.setdefault(obj, {})[name] = values
    return found


def _derive_nothing(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    *,
    now: datetime,
    stage_config: Mapping[str, Mapping[str, str]] | None,
    defined: bool,
) -> Outcome:
    """A night in which nothing was touched: what was delivered is what is here. The stage map may have moved all the same."""
    if stage_config is not None:
        if stages.update_map(con, settings.source, settings.crm, stage_config, now, under_way=False):
            stages.restate(con, settings.source)
        if defined:
            _note_stages(con)
    delivered = con.execute("select count(distinct id) from delivered").fetchone()
    return Outcome(raw.Counts(unchanged=int(delivered[0]) if delivered else 0))


def _refresh_custom(con: duckdb.DuckDBPyConnection, crm: str) -> None:
    """The deals of which nothing but light_fields() moved: `custom` says their new values, and nothing is derived."""
    if crm != "salesforce":
        return
    con.execute("""
        update core.opportunity o set custom = n.custom
        from (
            select id, json_merge_patch(payload, getvariable('custom_patch')::json) as custom
            from raw.salesforce_opportunity semi join refreshed using (id) anti join touched using (id)
            where source = getvariable('source')
        ) n
        where o.source = getvariable('source') and o.opportunity_id = n.id
    """)


def _count(con: duckdb.DuckDBPyConnection) -> raw.Counts:
    """What this load changes of core.opportunity, before it does. A delivered deal that says the same is unchanged, or an echo if its
    stamp moved."""
    rows = con.execute("""
        with compared as (
            select n.opportunity_id,
                   case when old.opportunity_key is null then 'inserted'
                        when n.is_deleted and not old.is_deleted then 'deleted'
                        when n.row_hash <> old.row_hash then 'changed'
                        when n.crm_modified_at is distinct from old.crm_modified_at then 'echoed'
                        else 'unchanged' end as outcome
            from new_opportunity n
            left join core.opportunity old using (opportunity_key)
        )
        select coalesce(c.outcome, 'unchanged') as outcome, count(*)
        from compared c
        full join (select distinct id from delivered) d on d.id = c.opportunity_id
        where d.id is not null or c.outcome in ('inserted', 'changed', 'deleted')
        group by 1
    """).fetchall()
    return raw.Counts(**dict(rows))


def _others(con: duckdb.DuckDBPyConnection, settings: Settings) -> list[Settings]:
    """The other sources, as their rows were derived."""
    rows = con.execute(
        "select derivation::varchar from core.source where source <> $1 and derivation is not null order by source", [settings.source]
    ).fetchall()
    return [Settings.from_document(row[0]) for row in rows]


def _derive_their_rates(con: duckdb.DuckDBPyConnection, others: list[Settings], settings: Settings, *, now: datetime) -> None:
    """Before any deal is converted: rates of other sources are rates into the home currency, which may be another one now."""
    for other in others:
        if other.business != settings.business:
            _ensure_tables(con, other.crm)
            _set_variables(con, replace(other, business=settings.business), now=now)
            _derive_rates(con, other, set(), everything=True)


def _derive_others(con: duckdb.DuckDBPyConnection, others: list[Settings], settings: Settings, *, now: datetime) -> None:
    """The deals of other sources, by the business that holds now: all of them where that moved, else those converted with rates,
    which may be the rates of the source that was just loaded."""
    for before in others:
        other = replace(before, business=settings.business)
        prepare(con, other.crm)
        _set_variables(con, other, now=now)
        _choose_deals(con, other, set(), everything=other != before, rates_moved=True)
        _derive_deals(con, other, now=now, stage_config=None)
        _note_derivation(con, other)
    _set_variables(con, settings, now=now)


def _note_derivation(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    con.execute(
        "update core.source set derivation = $1::json, business_timezone = $2, home_currency = $3 where source = $4",
        [settings.document(), settings.business.timezone, settings.business.currency, settings.source],
    )


def _run(con: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        con.execute((HERE / name).read_text(encoding="utf-8"))


def _path(key: str) -> str:
    return '$."' + key.replace('"', '\\"') + '"'
