"""The company tables become a portal, by SQL alone: every record with its property history, associations and activities."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from connectors.simulator.hubspot.links import HUBSPOT
from connectors.simulator.hubspot.pipelines import STAGE_PROPERTIES, Pipelines
from connectors.simulator.hubspot.portal import HubSpotPortal
from connectors.simulator.hubspot.records import stage_values
from connectors.simulator.hubspot.store import literal, quote

TABLES = (
    *("profile", "currency", "person", "pipeline", "stage", "account", "contact"),
    *("deal", "deal_change", "deal_contact", "activity"),
)
CUSTOM_PROPERTIES = (
    ("lead_source", "enumeration", "select", "Lead source"),
    ("region", "enumeration", "select", "Region"),
    ("product_line", "enumeration", "select", "Product line"),
    ("competitor", "string", "text", "Competitor"),
)
CURRENT = ("dealstage", "amount", "closedate", "hubspot_owner_id", "hs_next_step", "hs_manual_forecast_category")
OWNER, USER, TEAM = 79_100_000, 9_560_000, 51_300_000
APP = "1182734"  # the app behind the company's own integrations


def load_company(portal: HubSpotPortal, company_con: duckdb.DuckDBPyConnection) -> None:
    """Project the schema `company` of another DuckDB connection into a portal that has no records yet.

    What the records became is kept in the table `loaded` (see `HubSpotPortal.object_id`). Raises ValueError when the portal
    has deals already.
    """
    if portal.store.value("select count(*) from object_deals"):
        raise ValueError("A company is loaded into an empty portal; this one has deals already")
    with tempfile.TemporaryDirectory(prefix="plumbline-company-") as directory, portal.store.lock:
        con = portal.store.con
        con.execute("set threads = 2")
        for table in TABLES:
            file = Path(directory) / f"{table}.parquet"
            company_con.execute(f"copy company.{table} to {literal(str(file))} (format parquet)")
            con.execute(f"create or replace temp view company_{table} as from read_parquet({literal(str(file))})")
        with portal.store.transaction():
            _profile(portal)
            _pipelines(portal)
            _people(portal)
            _accounts(portal)
            _changes(portal)
            _activities(portal)
            _deals(portal)
            _associations(portal)
            for name in ("companies", "contacts", "deals"):
                after = portal.store.value(f"select max(_id) + 97 from object_{name}")
                if after is not None:
                    portal.store.run("update object_type set next_id = ? where name = ?", [after, name])
        for table in ("change", "happened"):
            con.execute(f"drop table if exists temp.{table}")
        for table in TABLES:
            con.execute(f"drop view temp.company_{table}")
        con.execute("set threads = 1")


def _profile(portal: HubSpotPortal) -> None:
    name, timezone, currency = portal.store.rows("select name, timezone, currency from company_profile")[0]
    for key, value in (("name", name), ("timezone", timezone), ("currency", currency)):
        portal.settings[key] = value
        portal.store.run("update setting set value = ? where name = ?", [value, key])
    # The company's rates are units per home unit; HubSpot keeps the worth of one unit.
    portal.store.run("delete from currency")
    portal.store.run("""
        insert into currency
        select row_number() over (order by iso_code), iso_code, 1 / rate::double, '2000-01-01'::date, '2000-01-01'::date
        from company_currency where is_active
    """)


def _pipelines(portal: HubSpotPortal) -> None:
    store = portal.store
    store.run("delete from stage")
    store.run("delete from pipeline")
    store.run(
        """insert into pipeline select pipeline, label, position, null, org_created_at, org_created_at
           from company_pipeline, company_profile order by position"""
    )
    store.run(
        """insert into stage select pipeline, stage, label, position, probability / 100.0, is_closed,
                  case when not is_active then org_created_at end, org_created_at, org_created_at
           from company_stage, company_profile order by pipeline, position"""
    )
    for pipeline, stage_id, label in store.rows("select pipeline, id, label from stage order by pipeline, display_order"):
        portal.pipelines.declare(pipeline, stage_id, label)
    portal.pipelines.read()
    for name, kind, field_type, label in CUSTOM_PROPERTIES:
        options = None
        if kind == "enumeration":
            found = store.rows(f"select distinct {name} from company_deal where {name} is not null order by 1")
            options = [row[0] for row in found]
        portal.add_property("deals", name, kind, field_type, label, options)


def _people(portal: HubSpotPortal) -> None:
    """Owners are people (and queues); integrations write under their app and own nothing."""
    portal.store.run(
        f"""insert into owner
            select {OWNER} + person_id * 17, {USER} + person_id * 13, email, first_name, last_name,
                   case kind when 'queue' then 'QUEUE' else 'PERSON' end,
                   case when team is not null then ({TEAM} + dense_rank() over (order by team) * 11)::varchar end, team,
                   case when not is_active then left_at end, joined_at, coalesce(left_at, joined_at)
            from company_person where kind <> 'integration' order by person_id"""
    )
    portal.store.run(
        f"""insert into loaded select 'person', person_id, {OWNER} + person_id * 17
            from company_person where kind <> 'integration'"""
    )


def _number(portal: HubSpotPortal, kind: str, source: str, key: str, first: int) -> None:
    """Give the rows of a company table record ids that rise with their creation, with gaps as in a portal in use."""
    portal.store.run(
        f"""insert into loaded
            select '{kind}', {key}, {first} + 137 * row_number() over (order by created_at, {key}) + hash({key}) % 131
            from company_{source}"""
    )


def _accounts(portal: HubSpotPortal) -> None:
    _number(portal, "account", "account", "account_id", 15_200_000_000)
    _number(portal, "contact", "contact", "contact_id", 21_400_000_000)
    _number(portal, "deal", "deal", "deal_id", 9_800_000_000)
    store = portal.store
    store.run(
        f"""insert into object_companies by name
            select l.object_id as _id, a.created_at as _created_at, a.created_at as _updated_at, a.name,
                   regexp_replace(a.website, '^https?://(www\\.)?', '') as domain, a.website, a.industry,
                   a.employees::varchar as numberofemployees, a.country, a.city, iso(a.created_at) as createdate,
                   ({OWNER} + a.owner_id * 17)::varchar as hubspot_owner_id
            from company_account a join loaded l on l.kind = 'account' and l.company_id = a.account_id order by 1"""
    )
    store.run(
        f"""insert into object_contacts by name
            select l.object_id as _id, c.created_at as _created_at, c.created_at as _updated_at, c.email,
                   c.first_name as firstname, c.last_name as lastname, c.title as jobtitle,
                   c.buying_role as hs_buying_role, 'opportunity' as lifecyclestage, iso(c.created_at) as createdate,
                   ({OWNER} + a.owner_id * 17)::varchar as hubspot_owner_id
            from company_contact c join loaded l on l.kind = 'contact' and l.company_id = c.contact_id
            left join company_account a on a.account_id = c.account_id order by 1"""
    )


def _changes(portal: HubSpotPortal) -> None:
    """Property history of deals. The close date is an instant: the hour of the day at which it was picked, and for some
    deals midnight of the portal's own zone, which in UTC is the day before. Closing sets it to the moment of closing."""
    zone = literal(portal.settings["timezone"])
    portal.store.run(
        f"""create or replace temp table change as
            with closing as (
              select c.deal_id, c."at" from company_deal_change c
              join company_deal d using (deal_id)
              join company_stage s on s.pipeline = d.pipeline and s.stage = c.new
              left join company_stage o on o.pipeline = d.pipeline and o.stage = c.old
              where c.field = 'stage' and s.is_closed and not coalesce(o.is_closed, false)),
            given as (
              select c.deal_id, c."at", c.seq, c.person_id, c.field, c.new,
                     (c.new::varchar || ' ' || case when hash(c.deal_id) % 10 = 0 then '00:00:00'
                        else strftime(timezone({zone}, c."at"), '%H:%M:%S') end) as picked,
                     x.deal_id is not null as closes
              from company_deal_change c
              left join closing x on x.deal_id = c.deal_id and x."at" = c."at"
              where c.field <> 'probability'
              union all  -- a deal that was closed without anybody moving its close date
              select x.deal_id, x."at", 999999, s.person_id, 'close_date', strftime(timezone({zone}, x."at"), '%Y-%m-%d'), null, true
              from closing x
              join company_deal_change s on s.deal_id = x.deal_id and s."at" = x."at" and s.field = 'stage'
              where not exists (from company_deal_change c
                                where c.deal_id = x.deal_id and c."at" = x."at" and c.field = 'close_date')),
            valued as (
              select deal_id, "at" as written_at, seq, person_id,
                     case field when 'stage' then 'dealstage' when 'close_date' then 'closedate' when 'owner' then 'hubspot_owner_id'
                       when 'next_step' then 'hs_next_step' when 'forecast_category' then 'hs_manual_forecast_category'
                       else field end as property,
                     case field
                       when 'amount' then regexp_replace(regexp_replace(new, '(\\.[0-9]*?)0+$', '\\1'), '\\.$', '')
                       when 'owner' then ({OWNER} + try_cast(new as bigint) * 17)::varchar
                       when 'forecast_category' then replace(upper(new), 'OMITTED', 'OMIT')
                       when 'close_date' then case when closes and new = strftime(timezone({zone}, "at"), '%Y-%m-%d') then iso("at")
                            else iso(timezone({zone}, picked::timestamp)) end
                       else new end as value
              from given)
            select l.object_id, v.*, p.kind = 'integration' as by_app
            from valued v join loaded l on l.kind = 'deal' and l.company_id = v.deal_id
            left join company_person p using (person_id)
            order by l.object_id, property, written_at, seq"""
    )
    portal.store.run(
        f"""insert into history_deals
            select object_id, property, value, written_at, seq, case when by_app then 'INTEGRATION' else 'CRM_UI' end,
                   case when by_app then '{APP}' else 'userId:' || ({USER} + person_id * 13) end,
                   case when not by_app then {USER} + person_id * 13 end, null
            from change
            -- a property that was empty from the start has no first version
            qualify value is not null or row_number() over (partition by object_id, property order by written_at, seq) > 1
            order by object_id, property, written_at, seq"""
    )


def _activities(portal: HubSpotPortal) -> None:
    zone, now = literal(portal.settings["timezone"]), literal(portal.clock.now().isoformat())
    portal.store.run(
        f"""insert into engagement
            select 61000000000 + row_number() over (order by a.activity_id), l.object_id, a.kind, a.subject,
                   {OWNER} + a.owner_id * 17,
                   coalesce(a.start_at, a.completed_at, timezone({zone}, a.due_date::timestamp + interval 9 hour)),
                   a.status = 'open' and a.kind <> 'meeting', a.created_at
            from company_activity a join loaded l on l.kind = 'deal' and l.company_id = a.deal_id
            order by a.activity_id"""
    )
    portal.store.run(
        f"""create or replace temp table happened as
            with told as (
              select *, not is_open and happens_at <= timestamptz {now} as past, kind in ('call', 'email', 'meeting') as contact
              from engagement)
            select deal_id as object_id, max(happens_at) filter (past) as last_activity,
                   max(happens_at) filter (past and contact) as last_contact,
                   min(happens_at) filter (happens_at > timestamptz {now}) as next_activity,
                   count(*) filter (past) as notes, count(*) filter (past and contact) as contacts,
                   count(*) filter (is_open and kind = 'task' and happens_at <= timestamptz {now}) as overdue,
                   max(greatest(created_at, case when past then happens_at end)) as logged_at
            from told group by deal_id"""
    )


def _deals(portal: HubSpotPortal) -> None:
    stages = portal.pipelines.stages()
    flags = {
        name: "case d.pipeline || ' ' || c.dealstage "
        + " ".join(f"when {literal(f'{s.pipeline} {s.id}')} then {literal(stage_values(s)[name] or '')}" for s in stages)
        + " end"
        for name in ("hs_deal_stage_probability", "hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost")
    }
    computed = "".join(f", {sql} as {name}" for name, sql in flags.items())
    current = ", ".join(f"last(value order by written_at, seq) filter (property = '{name}') as {name}" for name in CURRENT)
    portal.store.run(
        f"""insert into object_deals by name
            with c as (
              select object_id, {current}, max(written_at) as changed_at,
                     max(written_at) filter (property = 'dealstage') as stage_at,
                     max(written_at) filter (property = 'hubspot_owner_id') as owner_at,
                     last(person_id order by written_at, seq) filter (not by_app) as last_person
              from change group by object_id),
            contacted as (select deal_id, count(distinct contact_id) as contacts from company_deal_contact group by deal_id),
            absorbed as (
              select x.merged_into as deal_id, string_agg(l.object_id::varchar, ';' order by l.object_id) as ids,
                     max(x.deleted_at) as merged_at
              from company_deal x join loaded l on l.kind = 'deal' and l.company_id = x.deal_id
              where x.merged_into is not null group by x.merged_into),
            spent as ({_stage_times(portal.pipelines)})
            select l.object_id as _id, d.created_at as _created_at,
                   greatest(d.created_at, c.changed_at, h.logged_at, a.merged_at) as _updated_at,
                   case when d.is_deleted and d.merged_into is null then d.deleted_at end as _archived_at,
                   survivor.object_id as _merged_into,
                   d.name as dealname, d.pipeline, d.type as dealtype, d.description, d.currency as deal_currency_code,
                   d.loss_reason as closed_lost_reason, d.win_reason as closed_won_reason,
                   {", ".join(f"d.{name}" for name, *_ in CUSTOM_PROPERTIES)},
                   iso(d.created_at) as createdate, c.* exclude (object_id, changed_at, stage_at, owner_at, last_person){computed},
                   iso(c.stage_at) as hs_v2_date_entered_current_stage, iso(c.owner_at) as hubspot_owner_assigneddate,
                   case when p.kind = 'integration' then 'INTEGRATION' else 'CRM_UI' end as hs_object_source,
                   case when p.kind <> 'integration' then ({USER} + d.created_by * 13)::varchar end as hs_created_by_user_id,
                   ({USER} + c.last_person * 13)::varchar as hs_updated_by_user_id,
                   coalesce(n.contacts, 0)::varchar as num_associated_contacts, '0' as hs_num_of_associated_line_items,
                   account.object_id::varchar as hs_primary_associated_company, a.ids as hs_merged_object_ids,
                   iso(h.last_activity) as notes_last_updated, iso(h.last_contact) as notes_last_contacted,
                   iso(h.next_activity) as notes_next_activity_date, h.notes::varchar as num_notes,
                   h.contacts::varchar as num_contacted_notes, h.overdue::varchar as hs_number_of_overdue_tasks,
                   spent.* exclude (object_id)
            from company_deal d
            join loaded l on l.kind = 'deal' and l.company_id = d.deal_id
            join c on c.object_id = l.object_id
            left join spent on spent.object_id = l.object_id
            left join temp.happened h on h.object_id = l.object_id
            left join contacted n on n.deal_id = d.deal_id
            left join absorbed a on a.deal_id = d.deal_id
            left join company_person p on p.person_id = d.created_by
            left join loaded account on account.kind = 'account' and account.company_id = d.account_id
            left join loaded survivor on survivor.kind = 'deal' and survivor.company_id = d.merged_into
            order by 1"""
    )


def _stage_times(pipelines: Pipelines) -> str:
    """SQL: one row per deal with the four time properties of every stage."""
    sources = {
        "hs_v2_date_entered_": "iso(max(entered) filter ({stage}))",
        "hs_v2_date_exited_": "iso(last(exited order by entered) filter ({stage}))",
        "hs_v2_latest_time_in_": "(last(ms order by entered) filter ({stage}))::varchar",
        "hs_v2_cumulative_time_in_": "(sum(ms) filter ({stage}))::varchar",
    }
    columns = ", ".join(
        f"{sources[prefix].format(stage=f'stage = {literal(stage.id)}')} as {quote(prefix + stage.id)}"
        for stage in pipelines.stages()
        for prefix, *_ in STAGE_PROPERTIES
    )
    return f"""
        select object_id, {columns} from (
          select object_id, value as stage, written_at as entered,
                 lead(written_at) over (partition by object_id order by written_at, seq) as exited,
                 date_diff('millisecond', written_at, exited) as ms
          from change where property = 'dealstage')
        group by object_id"""


def _associations(portal: HubSpotPortal) -> None:
    """Deals and contacts with their company, deals with their contacts under labels for the roles; both directions.

    The associations of a deal that was merged away are its survivor's; those of an archived one are out of sight.
    """
    deals, contacts = portal.catalogue.types["deals"], portal.catalogue.types["contacts"]
    for (role,) in portal.store.rows("select distinct role from company_deal_contact where role is not null order by role"):
        portal.links.label_type(deals, contacts, role)
    portal.store.run(
        f"""insert into association
            with record as (
              select x.company_id, d._id, d._archived_at is not null as hidden
              from loaded x join object_deals d on d._id = x.object_id where x.kind = 'deal' and d._merged_into is null),
            company as (select company_id, object_id as _id from loaded where kind = 'account'),
            contact as (select company_id, object_id as _id from loaded where kind = 'contact'),
            pair as (
              select 'deals' as a, r._id as a_id, 'companies' as b, y._id as b_id, unnest([5, 341]) as type_id, '{HUBSPOT}' as category,
                     r.hidden
              from company_deal d join record r on r.company_id = d.deal_id join company y on y.company_id = d.account_id
              union all
              select 'contacts', c._id, 'companies', y._id, unnest([1, 279]), '{HUBSPOT}', false
              from company_contact k join contact c on c.company_id = k.contact_id join company y on y.company_id = k.account_id
              union all
              select 'deals', r._id, 'contacts', c._id, 3, '{HUBSPOT}', r.hidden
              from company_deal_contact k join record r on r.company_id = k.deal_id join contact c on c.company_id = k.contact_id
              union all
              select 'deals', r._id, 'contacts', c._id, t.type_id, t.category, r.hidden
              from company_deal_contact k join record r on r.company_id = k.deal_id join contact c on c.company_id = k.contact_id
              join association_type t on t.from_type = 'deals' and t.to_type = 'contacts' and t.label = k.role),
            both_ways as (
              select distinct * from pair
              union all
              select distinct p.b, p.b_id, p.a, p.a_id, t.inverse_type_id, p.category, p.hidden
              from pair p join association_type t
                on t.from_type = p.a and t.to_type = p.b and t.category = p.category and t.type_id = p.type_id)
            select a, a_id, b, b_id, category, type_id, hidden from both_ways order by a, a_id, b, b_id"""
    )
