"""A believable warehouse for the report: two CRMs, twelve nights, every kind of trouble that the page has to show.

Made by SQL from hashes, so it is the same each time and as quick for 100,000 deals as for 300. The DDL is the warehouse's own.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import duckdb

TABLES = Path(__file__).parents[2] / "warehouse" / "tables"
NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
BUSINESS_DATE = date(2026, 11, 23)
ZONE = "Europe/Berlin"
NIGHTS = 12

HOSTILE = (
    "<script>document.documentElement.dataset.pwned=1</script>",
    "<img src=x onerror=\"document.documentElement.dataset.pwned=1\">",
    "\"><svg onload='document.documentElement.dataset.pwned=1'>",
    "{{ 7*7 }} {% raw %} & <b>Müller</b> \u202egnp.exe",
)

# rule_id, title, mistake, severity, state, audience, group, fix, share failing in percent, message
RULES = [
    ("close_date_past", "Open deal with a close date in the past", "forecast accuracy", "critical", "alert", "rep", "close_date",
     "Set it won or lost, or give a new date with a reason.", 9, "Close date {d} has passed: won, lost, or a new date with a reason."),
    ("owner_not_working", "The owner left, is a queue or an integration user", "integrity", "critical", "alert", "admin", "integrity",
     "Give the deal to someone who works it.", 0, "Owned by {o}, who no longer works here."),
    ("state_inconsistent", "Stage, flags and dates contradict each other", "integrity", "critical", "alert", "admin", "integrity",
     "Map the stage, or correct the record.", 0, "Stage “{s}” is not mapped."),
    ("no_recent_activity", "Nobody has touched this deal lately", "stale", "high", "alert", "rep", "freshness",
     "Log the last contact, book the next one, or close it.", 14, "No call, e-mail or meeting logged for {n} days."),
    ("stage_dwell_over_p90", "Stuck in its stage longer than 90 % of the deals you won", "stale", "high", "alert", "rep", "freshness",
     "Decide what would move it this week.", 8, "{n} days in {s}; deals you win leave it within 34."),
    ("next_step_empty", "No next step written", "no next step", "high", "alert", "rep", "next_step",
     "Write who does what by when.", 98, "No next step and no meeting booked."),
    ("deal_over_aged", "Older than almost every deal you ever won", "hoarding", "high", "alert", "rep", "hoarding",
     "Close it, or say why it lives.", 6, "Open for {n} days; 95 % of won deals took less than 210."),
    ("no_contact", "Nobody on the buyer's side is attached", "stage exit", "high", "observe", "rep", "completeness",
     "Attach the person you are talking to.", 11, "No contact is attached in {s}."),
    ("amount_missing_or_zero", "No amount", "completeness", "medium", "alert", "rep", "completeness",
     "Add the value you quoted.", 5, "No amount in {s}."),
    ("single_threaded", "Only one person knows about this deal", "happy ears", "medium", "alert", "rep", "completeness",
     "Meet a second person on the buyer's side.", 12, "One contact for an amount of {a}."),
    ("exit_qualified", "Left Qualified without need, buyer or fit", "happy ears", "low", "observe", "rep", "exit",
     "Fill in what was agreed.", 7, "In {s} without: buyer."),
    ("exit_closed_lost", "Lost without a reason", "completeness", "low", "alert", "rep", "exit",
     "Say why it was lost.", 0, "Lost without a reason."),
]  # fmt: skip

SELLERS = ["Karin Aaltonen", "Tomás Herrera", "Wiebke Janssen", "Priya Raghavan", "Marc-Olivier Dubé", "Zoë Lindqvist",
           "Jürgen Groß-Althof", HOSTILE[1], "Ingrid Solberg (left)", "Unassigned queue", "Bram de Wit", "Aoife Ní Bhriain"]  # fmt: skip
FIRMS = ["Nordwind", "Halvorsen", "Castellani", "Brightwater", "Okafor", "Delacroix", "Steinmetz", "Kowalczyk", "Vasquez", "Lindgren",
         "Ashdown", "Moreau", "Tanaka", "Fairholm", "Grünwald", "Petrov", "Ricci", "Marlowe", "Østergaard", "Sundaram"]  # fmt: skip
KINDS = ["Logistics", "Pharma", "Foods", "Systems", "Energy", "Textiles", "Marine", "Instruments", "Media", "Robotics"]
WORK = ["fleet rollout", "renewal 2027", "pilot", "data platform", "line 4 retrofit", "support contract", "expansion", "ERP interface"]


def empty(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """All tables, no rows, and the views that the report reads."""
    for file in sorted(TABLES.glob("*/*.sql")):
        con.execute(f"create schema if not exists {file.parent.name}")
    for file in (*sorted(TABLES.glob("*/*.sql")), *sorted((TABLES.parent / "views" / "core").glob("*.sql"))):
        con.execute(file.read_text())
    return con


def fill(con: duckdb.DuckDBPyConnection, *, deals: int = 300, nights: int = NIGHTS, checked: bool = True) -> duckdb.DuckDBPyConnection:
    """Insert about `deals` open deals and 40 % closed ones, and what `nights` nightly runs left behind."""
    con.execute("create or replace macro h(a, b) as (hash(a::varchar || '/' || b::varchar) % 1000000)::bigint")
    con.execute("create or replace macro pick(xs, a, b) as xs[1 + h(a, b) % len(xs)]")
    _deals(con, deals)
    _sync(con, nights)
    if checked:
        _checks(con, nights)
        _writeback(con)
    return con


def sample(*, deals: int = 300, nights: int = NIGHTS) -> duckdb.DuckDBPyConnection:
    return fill(empty(duckdb.connect()), deals=deals, nights=nights)


def _deals(con: duckdb.DuckDBPyConnection, deals: int) -> None:
    con.execute(
        """
        insert into core.owner by name
        select s.source || ':' || s.n as owner_key, s.source, 'u' || lpad(s.n::varchar, 3, '0') as owner_id, s.name,
            'person' || s.n || '@example.com' as email, s.n not in (9, 10) as is_active, s.n <> 10 as is_seller,
                null as manager_id,
            case when s.n < 6 then 'North' else 'South' end as team
        from (select unnest($sellers) as name, unnest(range(1, len($sellers) + 1)) as n) p
        cross join lateral (select p.name, p.n, case when p.n <= 8 or p.n in (9, 10) then 'sales' else 'inbound' end as source) s
        """,
        {"sellers": SELLERS},
    )
    con.execute(
        """
        insert into core.source by name
        select source, crm, 'org-' || source as org_id, $zone as timezone, 'EUR' as currency, 1 as fiscal_year_start_month,
            $now::timestamptz - interval 13 day as first_synced_at, $now::timestamptz as last_synced_at, derivation::json as derivation
        from (values
            ('sales', 'salesforce', '{"readable": ["Opportunity", "OpportunityHistory", "Task", "User", "Account", "OpportunityStage"],
                "fields": {"lost_reason": "Loss_Reason__c"}}'),
            ('inbound', 'hubspot', '{"readable": ["deals", "deals.history", "deals.associations", "owners", "companies", "pipelines"],
                "fields": {}}')) t(source, crm, derivation)
        """,
        {"zone": ZONE, "now": NOW},
    )
    con.execute(
        """
        insert into core.stage_map by name
        select source, pipeline, crm_stage, label, position, probability, 'pipeline' as forecast_category, is_closed, is_won,
            true as is_active, stage, rank as stage_rank, origin, confidence, suggestion, reason, $now::timestamptz as updated_at
        from (values
            ('sales', 'New business', 'Qualification', 'Qualification', 1, .10, false, false, 'qualified', 1, 'default', null,
                null, null),
            ('sales', 'New business', 'Needs Analysis', 'Needs Analysis', 2, .25, false, false, 'discovery', 2, 'default', null,
                null, null),
            ('sales', 'New business', 'Proposal/Price Quote', 'Proposal/Price Quote', 3, .50, false, false, 'proposal', 3,
                'default', null, null, null),
            ('sales', 'New business', 'Verbal', 'Verbal', 4, .80, false, false, 'negotiation', 4, 'config', null, null, null),
            ('sales', 'New business', 'Orbit Check', 'Orbit <i>Check</i>', 5, .40, false, false, 'unmapped', null, 'unmapped',
                .31, null, null),
            ('sales', 'New business', 'Closed Won', 'Closed Won', 6, 1, true, true, 'closed_won', 5, 'flags', null, null, null),
            ('sales', 'New business', 'Closed Lost', 'Closed Lost', 7, 0, true, false, 'closed_lost', 5, 'flags', null, null,
                null),
            ('inbound', 'Partner', '10031', 'New lead', 0, .05, false, false, 'prequalified', 0, 'default', null, null, null),
            ('inbound', 'Partner', '10032', 'Discovery call', 1, .20, false, false, 'discovery', 2, 'default', null, null, null),
            ('inbound', 'Partner', '10033', 'Security Review', 2, .60, false, false, 'unmapped', null, 'suggested', .64,
                'negotiation',
                'sits between Proposal and Closed won, probability 60 %'),
            ('inbound', 'Partner', '10034', 'Contract sent', 3, .90, false, false, 'negotiation', 4, 'default', null, null, null),
            ('inbound', 'Partner', '10035', 'Parked', 4, .05, false, false, 'on_hold', null, 'config', null, null, null),
            ('inbound', 'Partner', '10036', 'Won', 5, 1, true, true, 'closed_won', 5, 'flags', null, null, null),
            ('inbound', 'Partner', '10037', 'Lost', 6, 0, true, false, 'closed_lost', 5, 'flags', null, null, null))
            as t(source, pipeline, crm_stage, label, position, probability, is_closed, is_won, stage, rank, origin, confidence,
                 suggestion, reason)
        """,
        {"now": NOW},
    )
    con.execute(
        """
        insert into core.opportunity by name
        with base as (
            select n, h(n, 'src') % 100 < 75 as is_sales, n > $deals as closed, h(n, 'won') % 10 < 3 as won,
                case when h(n, 'src') % 100 < 75 then 'sales' else 'inbound' end as source
            from range(1, $deals + $deals * 4 // 10 + 1) t(n)
        ), staged as (
            select base.*, row_number() over (partition by base.n order by
                case when m.stage in ('unmapped', 'on_hold') and h(base.n, m.stage) % 100 >= 5 then 2000000
                    when m.stage in ('unmapped', 'on_hold') then -1 else h(base.n, m.crm_stage) end) as pick, m.*
            from base join core.stage_map m on m.source = base.source and m.is_closed = base.closed
                and (not base.closed or m.is_won = base.won)
        ), deal as (
            select s.n, s.source, s.closed, s.won and s.closed as won, s.pipeline, s.crm_stage, s.label, s.stage, s.stage_rank,
                s.probability, 'p' || lpad(s.n::varchar, 6, '0') as id, o.owner_id, o.name as owner_name, o.is_active
                    and o.is_seller as working,
                case h(s.n, 'cur') % 20 when 0 then 'GBP' when 1 then 'CHF' when 2 then 'SEK' else 'EUR' end as currency,
                case when h(s.n, 'amt') % 100 < 5 then null else
                    round(exp(8.6 + 1.9 * h(s.n, 'z') / 1e6 + 1.2 * h(s.n, 'y') / 1e6), -2)::decimal(18, 2) end as amount,
                $now::timestamptz - to_days((2 + h(s.n, 'age') % 270)::int) as created_at,
                $today::date + (case when s.closed then -5 - h(s.n, 'cd') % 200 when h(s.n, 'late') % 100 < 9 then -1 - h(s.n,
                    'cd') % 130
                    else h(s.n, 'cd') % 230 end)::int as close_date
            from staged s
            join (select *, row_number() over (partition by source order by owner_id) - 1 as i,
                count(*) over (partition by source) as of_source
                  from core.owner) o
                on o.source = s.source and s.pick = 1
                and o.i = case when s.source = 'sales' and h(s.n, 'o') % 100 >= 3 then h(s.n, 'p') % 8
                    when s.source = 'sales' then 8 + h(s.n, 'q') % 2
                    else h(s.n, 'p') % o.of_source end
        )
        select source || ':' || id as opportunity_key, source, case source when 'sales' then 'salesforce'
            else 'hubspot' end as crm,
            id as opportunity_id,
            case n when 5 then 'javascript:alert(1)' else 'https://acme.example/' || source || '/' || id end as url,
            case when n <= len($hostile) then $hostile[n]
                else pick($firms, n, 'f') || ' ' || pick($kinds, n, 'k') || ' – ' || pick($work, n, 'w') end as name,
            'a' || n as account_id, case when n = 2 then $hostile[1] else pick($firms, n, 'f') || ' ' || pick($kinds, n,
                'k') end as account_name,
            owner_id, owner_name, working as owner_active, pipeline, crm_stage, label as crm_stage_label, stage, stage_rank,
                closed as is_closed,
            won as is_won, h(n, 'del') % 100 < 2 as is_deleted, amount, currency, pipeline as pipeline_id,
            case currency when 'EUR' then amount when 'GBP' then (amount * 1.17)::decimal(18, 2) when 'CHF'
                then (amount * 1.05)::decimal(18, 2) end
                as amount_home,
            case currency when 'EUR' then 1 when 'GBP' then 1.17 when 'CHF' then 1.05 end as fx_rate,
            probability, case when closed then 'closed' else 'pipeline' end as forecast_category, created_at, close_date,
            case when closed then close_date::timestamptz end as closed_at,
            $now::timestamptz - to_days((3 + h(n, 'dwell') % 90)::int) as stage_entered_at,
            case source when 'sales' then 'full' else 'none' end as activity_capability, (h(n, 'c') % 4)::int as contact_count,
            case when h(n, 'cd0') % 100 = 0 and not closed then 1 end as close_date_pushes, created_at as crm_modified_at,
            $now::timestamptz as synced_at, md5(id) as row_hash
        from deal
        """,
        {"deals": deals, "now": NOW, "today": BUSINESS_DATE, "hostile": list(HOSTILE), "firms": FIRMS, "kinds": KINDS, "work": WORK},
    )
    con.execute("update core.opportunity set close_date = null where close_date_pushes = 1")
    con.execute(
        """
        insert into core.field by name
        select 'sales' as source, 'Opportunity' as object, unnest(['Name', 'AccountId', 'OwnerId', 'StageName', 'IsClosed',
                'IsWon', 'Type', 'Amount', 'Probability', 'ForecastCategoryName', 'CreatedDate', 'CloseDate', 'LastStageChangeDate',
                'NextStep', 'Loss_Reason__c']) as name, name as label,
            'string' as type, false as is_custom, false as is_calculated, $now::timestamptz - interval 30 day as first_seen_at,
            $now::timestamptz as last_seen_at
        union all by name
        select 'sales' as source, 'Opportunity' as object, 'Renewal_Risk__c' as name, 'Renewal risk' as label,
            'picklist' as type, true as is_custom,
            false as is_calculated, $now::timestamptz as first_seen_at, $now::timestamptz as last_seen_at
        """,
        {"now": NOW},
    )
    con.execute(
        """
        insert into core.field_lost by name
        select 'sales' as source, 'Opportunity' as object, 'Description' as name, 'Beschreibung' as label, 'textarea' as type,
            $now::timestamptz - interval 3 day as lost_at
        """,
        {"now": NOW},
    )
    con.execute(
        """
        insert into core.unparsed_value
        select source, if(source = 'sales', 'Opportunity', 'deals'), opportunity_id, 'seats', 'evidence.seats', 'number',
            $now::timestamptz - interval 2 day
        from core.opportunity
        where not is_deleted
        qualify row_number() over (partition by source order by opportunity_id) <= if(source = 'sales', 1, 3)
        """,
        {"now": NOW},
    )


def _sync(con: duckdb.DuckDBPyConnection, nights: int) -> None:
    con.execute(
        """
        create or replace temp table night as
        select i, as_of, strftime(as_of at time zone 'UTC', '%Y%m%dT%H%M%S') || '-' || substr(md5(i::varchar), 1, 4) as run_id,
            (as_of at time zone $zone)::date as business_date
        from (select n as i, $now::timestamptz - to_days((($nights - n) + case when n < $nights - 6 then 1
            else 0 end)::int) as as_of
              from range(1, $nights + 1) t(n))
        """,
        {"now": NOW, "nights": nights, "zone": ZONE},
    )
    con.execute(
        """
        insert into ops.sync_run by name
        select run_id, 'nightly' as command, s.source, as_of, as_of as started_at, as_of + to_seconds(40 + i) as ended_at,
            case when i = $nights and s.source is distinct from 'sales' then 'failed' else 'done' end as status,
            case when i = $nights and s.source = 'inbound'
                then 'inbound (deals): the token does not have the scope crm.objects.deals.read. Add it to the private app.' end as error,
            case when i = $nights and s.source is null then null end as detail
        from night cross join (values ('sales'), ('inbound'), (null)) s(source)
        """,
        {"nights": nights},
    )
    con.execute(
        """
        insert into ops.sync_object by name
        select run_id, source, object, case when i = 1 then 'full' else 'incremental' end as mode,
            f.fetched, case when i = 1 then f.fetched else f.fetched // 9 end as inserted, case when i = 1 then 0
                else f.fetched // 3 end as changed,
            f.fetched - case when i = 1 then f.fetched else f.fetched // 9 + f.fetched // 3 + f.fetched // 4 end as unchanged,
            case when i = 1 then 0 else f.fetched // 4 end as echoed, h(i, object) % 3 as deleted, f.fetched * 812 as bytes,
            1 + f.fetched // 200 as calls, case when object = 'Event'
                then 'Event: the user may not read it; activities are tasks only' end as notice
        from night
        cross join (values ('sales', 'Opportunity', 400), ('sales', 'OpportunityHistory', 1200), ('sales', 'Task', 900),
            ('sales', 'Event', 0),
            ('sales', 'User', 14), ('inbound', 'deals', 130), ('inbound', 'deals.history', 130), ('inbound', 'owners',
                6)) t(source, object, n)
        cross join lateral (select case when i = 1 then n else n // 10 + h(i, object) % 9 end as fetched) f
        where not (i = $nights and source = 'inbound') or $nights = 1
        """,
        {"nights": nights},
    )
    con.execute(
        """
        insert into ops.watermark by name
        select source, object, max(as_of) - interval 4 minute as watermark, max(run_id) as run_id
        from ops.sync_object join night using (run_id) where object in ('Opportunity', 'OpportunityHistory', 'Task', 'deals',
            'deals.history')
        group by all
        """
    )
    con.execute(
        """
        insert into ops.api_usage by name
        select run_id, source, sum(calls) as calls, case source when 'sales' then 41200 else 3100 end as daily_used,
            case source when 'sales' then 100000 else 250000 end as daily_limit
        from ops.sync_object group by all
        """
    )


def _checks(con: duckdb.DuckDBPyConnection, nights: int) -> None:
    columns = ["rule_id", "title", "mistake", "severity", "state", "audience", "grp", "fix", "share", "message"]
    con.execute(
        "create or replace temp table sample_rule as select "
        + ", ".join(f"unnest(${name}) as {name}" for name in columns),
        {name: [r[i] for r in RULES] for i, name in enumerate(columns)},
    )
    con.execute(
        """
        insert into quality.rule by name
        select rule_id, title, mistake, severity, state, audience, grp, title || '. ' || fix as description, fix,
            '2026.3-4f1c' as version,
            md5(rule_id) as definition, case rule_id when 'next_step_empty' then ['next_activity_at', 'next_step']
                when 'no_contact' then ['contact_count'] when 'single_threaded' then ['amount', 'contact_count']
                when 'no_recent_activity' then ['last_activity_at', 'next_activity_at'] when 'exit_qualified' then ['description']
                else ['amount'] end as reads
        from sample_rule
        """
    )
    # A deal fails a rule from one night on; about a third of these failures end on a later night.
    con.execute(
        """
        insert into quality.finding by name
        with episode as (
            select o.*, r.rule_id, r.severity, r.message,
                greatest(1, h(o.opportunity_key, r.rule_id || 'start') % (2 * $nights) - $nights + 1) as first_night,
                case when h(o.opportunity_key, r.rule_id || 'end') % 3 = 0 and rule_id not in ('owner_not_working',
                    'state_inconsistent')
                    then 2 + h(o.opportunity_key, r.rule_id || 'last') % ($nights + 2) end as resolved_night
            from core.opportunity o cross join sample_rule r
            where not o.is_deleted and case
                when o.is_closed then r.rule_id = 'exit_closed_lost' and not o.is_won and h(o.opportunity_key,
                    'reason') % 100 < 22
                when r.rule_id = 'close_date_past' then o.close_date < $today
                when r.rule_id = 'owner_not_working' then not o.owner_active
                when r.rule_id = 'state_inconsistent' then o.stage = 'unmapped'
                when r.rule_id = 'amount_missing_or_zero' then o.amount is null
                when r.rule_id = 'no_recent_activity' then o.activity_capability = 'full' and h(o.opportunity_key,
                    r.rule_id) % 100 < r.share
                when r.rule_id = 'deal_over_aged' then o.source = 'sales' and h(o.opportunity_key, r.rule_id) % 100 < r.share
                else h(o.opportunity_key, r.rule_id) % 100 < r.share and coalesce(o.stage_rank, 0) > 0 end
        )
        select md5(opportunity_key || rule_id) as finding_id, opportunity_key, rule_id, severity,
            case when e.resolved_night <= $nights then 'resolved' when h(opportunity_key, rule_id || 'w') % 25 = 0
                then 'waived' else 'open' end
                as state,
            replace(replace(replace(replace(replace(message, '{d}', coalesce(close_date::varchar, '')), '{o}',
                coalesce(owner_name, '')),
                '{s}', crm_stage_label), '{n}', (15 + h(opportunity_key, rule_id || 'n') % 160)::varchar),
                '{a}', 'EUR ' || format('{:,}', coalesce(amount_home, 0)::bigint)) as message,
            owner_id, f.as_of as first_seen_at, coalesce(r.as_of, l.as_of) as last_seen_at,
            (coalesce(e.resolved_night, $nights + 1) - e.first_night)::int as runs_seen,
            case when e.resolved_night <= $nights then r.as_of end as resolved_at,
            case when e.resolved_night <= $nights then ['fixed', 'fixed', 'fixed', 'closed',
                'not_applicable'][1 + h(opportunity_key, 'res') % 5] end
                as resolution
        from episode e
        join night f on f.i = e.first_night
        join night l on l.i = $nights
        left join night r on r.i = e.resolved_night
        where (e.resolved_night is null or e.resolved_night > e.first_night)
            and (rule_id <> 'deal_over_aged' or (e.first_night < $nights and e.resolved_night is distinct from $nights))
        """,
        {"nights": nights, "today": BUSINESS_DATE},
    )
    con.execute(
        """
        insert into quality.waiver by name
        select 'w1' as waiver_id, 'pipeline' as scope, 'inbound:Partner' as scope_key, 'single_threaded' as rule_id,
            'Partner deals have one contact by agreement' as reason, 'Karin Aaltonen' as author,
            $now::timestamptz - interval 60 day as valid_from, $now::timestamptz + interval 6 day as valid_until
        """,
        {"now": NOW},
    )
    con.execute(
        """
        create or replace temp table sample_scope as
        select o.opportunity_key, o.source, o.owner_id, o.pipeline, o.amount_home, o.stage, n.run_id, n.as_of
        from core.opportunity o cross join night n
        where not o.is_closed and not o.is_deleted and o.stage_rank between 1 and 4 and o.created_at < n.as_of
        """
    )
    con.execute(
        """
        insert into quality.score by name
        with failed as (
            select n.run_id, f.opportunity_key, r.grp, f.severity,
                max(case f.severity when 'critical' then 30 when 'high' then 15 when 'medium' then 8 when 'low' then 3
                    else 0 end) as points
            from night n
            join quality.finding f on f.first_seen_at <= n.as_of and (f.resolved_at is null or f.resolved_at > n.as_of)
                and f.state <> 'waived'
            join sample_rule r on r.rule_id = f.rule_id and r.state = 'alert'
            group by all
        ), grouped as (
            select run_id, opportunity_key, grp, max(points) as points, bool_or(severity in ('critical', 'high')) as bad,
                bool_or(severity = 'critical') as critical
            from failed group by all
        ), deal as (
            select s.*, greatest(0, 100 - coalesce(sum(points), 0)) as score, coalesce(bool_or(bad), false) as bad,
                coalesce(bool_or(critical), false) as critical
            from sample_scope s left join grouped using (run_id, opportunity_key) group by all
        ), scoped as (
            select *, unnest(['opportunity', 'owner', 'pipeline', 'source', 'all']) as scope,
                unnest([opportunity_key, source || ':' || owner_id, source || ':' || pipeline, source, 'all']) as scope_key
            from deal
        )
        select run_id, as_of, scope, scope_key, avg(score)::decimal(5, 1) as score, count(*) as deals,
            case when min(score) < 60 or bool_or(critical) then 'at_risk' when avg(score) >= 90 and not bool_or(bad) then 'clean'
                else 'needs_attention' end as status,
            sum(amount_home) as open_amount_home, coalesce(sum(amount_home) filter (where bad), 0) as at_risk_amount_home,
            .8650 as evaluable_share, '2026.3-4f1c' as rule_set_version
        from scoped
        where scope <> 'opportunity' or run_id = (select max(run_id) from night)  -- single deals: the newest only
        group by all
        """
    )
    con.execute(
        """
        insert into quality.result by name
        with applicable as (
            select n.run_id, n.as_of, s.source, r.rule_id, count(o.opportunity_key) as applicable
            from night n cross join (values ('sales'), ('inbound')) s(source) cross join sample_rule r
            left join core.opportunity o on o.source = s.source and not o.is_deleted and case when r.rule_id = 'exit_closed_lost'
                then o.is_closed and not o.is_won else not o.is_closed and (o.stage_rank between 1 and 4
                    or r.audience = 'admin') end
            group by all
        ), failing as (
            select n.run_id, o.source, f.rule_id, count(*) filter (where f.state <> 'waived') as failed,
                count(*) filter (where f.state = 'waived') as waived,
                    sum(o.amount_home) filter (where f.state <> 'waived') as amount
            from night n join quality.finding f on f.first_seen_at <= n.as_of and (f.resolved_at is null
                or f.resolved_at > n.as_of)
            join core.opportunity o using (opportunity_key)
            group by all
        )
        select run_id, as_of, source, rule_id, if(is_errored, null, applicable) as applicable,
            case when is_errored then null when rule_id = 'no_recent_activity' and source = 'inbound' then 0
                when rule_id = 'no_contact' then applicable * 3 // 10
                when rule_id = 'exit_qualified' and source = 'sales' then applicable * 8 // 10 else applicable end as evaluable,
            if(is_errored, null, coalesce(failed, 0)) as failed, if(is_errored, null, coalesce(waived, 0)) as waived,
            if(is_errored, null, coalesce(amount, 0)) as failed_amount_home, if(is_errored, null, coalesce(failed, 0) = 0) as success,
            if(is_errored, 'Binder Error: column created_at cannot be compared', null) as error,
            case when rule_id = 'no_recent_activity' and source = 'inbound' then 'activities are not synced'
                when rule_id = 'no_contact' then 'contact roles could not be read'
                when rule_id = 'exit_qualified' and source = 'sales' then 'description cannot be read in this source' end as unknown_reason
        from applicable left join failing using (run_id, source, rule_id)
        cross join lateral (select rule_id = 'deal_over_aged' and run_id = (select max(run_id) from night) as is_errored)
        """
    )
    con.execute(
        """
        insert into quality.run by name
        select run_id, as_of, business_date, '2026.3-4f1c' as rule_set_version, (select count(*) from sample_rule) as rules,
            (select count(distinct rule_id) from quality.result q where q.run_id = n.run_id and q.error is not null) as errored,
            false as success,
            (select count(*) from quality.finding f where f.first_seen_at = n.as_of) as opened,
            (select count(*) from quality.finding f where f.first_seen_at < n.as_of and coalesce(f.resolved_at > n.as_of, true)
                and not (f.rule_id = 'deal_over_aged' and n.i = $nights)) as kept,
            (select count(*) from quality.finding f where f.resolved_at = n.as_of) as resolved
        from night n
        """,
        {"nights": nights},
    )
    con.execute(
        """
        insert into bi.pipeline_snapshot by name
        select n.business_date as snapshot_date, source, pipeline, stage, owner_id, owner_name, currency, count(*) as deals,
            sum(amount) as amount,
            (sum(amount_home) * (1 - ($nights - n.i) * .013 * (h(stage, 'drift') % 5 - 2)))::decimal(38, 2) as amount_home,
            sum(amount_home * probability)::decimal(38, 2) as weighted_home, 0 as flagged_deals, 0 as flagged_amount_home,
                n.as_of as taken_at
        from core.opportunity o cross join night n
        where not is_closed and not is_deleted
        group by n.business_date, n.i, n.as_of, source, pipeline, stage, owner_id, owner_name, currency
        """,
        {"nights": nights},
    )


def _writeback(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        """
        insert into ops.writeback_change by name
        select '9f8e7d6c5b4a' as plan_hash, opportunity_key, source, opportunity_id, field, null as old_value,
            'at_risk' as new_value,
            case when source = 'inbound' then 'planned' when h(opportunity_id, 'wb') % 12 = 0 then 'failed'
                else 'written' end as status,
            n.run_id, n.as_of as sent_at,
            case when source = 'sales' and h(opportunity_id, 'wb') % 12 = 0 then pick(['FIELD_CUSTOM_VALIDATION_EXCEPTION',
                'UNABLE_TO_LOCK_ROW'],
                opportunity_id, 'code') end as error_code,
            case when source = 'sales' and h(opportunity_id, 'wb') % 12 = 0 then
                pick(['A close date in the past needs a <reason>', 'unable to obtain exclusive access'], opportunity_id,
                    'code') end as error
        from quality.score s join core.opportunity o on o.opportunity_key = s.scope_key
        cross join (select max(run_id) as run_id, max(as_of) as as_of from night) n
        cross join (values ('status'), ('score'), ('top_issue')) f(field)
        where s.scope = 'opportunity' and s.run_id = n.run_id and s.status = 'at_risk' and h(opportunity_key, 'wb?') % 4 = 0
        """
    )
    con.execute(
        """
        insert into ops.writeback_plan by name
        select plan_hash, any_value(run_id) as run_id, max(sent_at) as created_at, 'applied' as status,
            count(distinct opportunity_key) as records, count(*) as changes,
            (select count(*) from core.opportunity where not is_closed and not is_deleted) as open_deals,
            'inbound has no field plumbline_flagged_since: left out' as note
        from ops.writeback_change group by plan_hash
        """
    )
