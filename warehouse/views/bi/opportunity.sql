-- Every deal in plain columns, one row each: the CRM's facts, the canonical stage, hygiene score and what is open against it. Days and ages are
-- of the business day of the last run. Deleted deals are left out; closed ones are in.
--   source: name of the source
--   crm: salesforce or hubspot
--   opportunity_key: source || ':' || the CRM's id
--   opportunity_id: the CRM's id
--   name: name of the deal
--   url: address in the CRM
--   account_id: the CRM's id of the account or company
--   account_name: its name
--   owner_id: the CRM's id of the owner
--   owner_name: name of the owner
--   owner_email: address of the owner
--   team: team of the owner
--   owner_active: false where the owner left or is no person
--   pipeline: record type or pipeline
--   stage: canonical stage
--   stage_rank: its place in the funnel, 0 (prequalified) to 5 (closed), to sort by; NULL for on_hold and unmapped
--   crm_stage: the CRM's own value of the stage
--   crm_stage_label: what people read for it
--   status: open, won or lost
--   is_closed: the CRM's own flag
--   is_won: the CRM's own flag
--   forecast_category: omitted, pipeline, best_case, most_likely, commit or closed
--   type: type of the deal, as people read it
--   amount: amount in its own currency
--   currency: ISO 4217
--   amount_home: amount in the home currency; NULL when no rate is known
--   weighted_home: amount_home x probability
--   probability: 0 to 1
--   created_date: business day on which the record was made
--   close_date: expected or actual day of closing
--   closed_date: business day on which it was closed, by history; NULL while open
--   stage_entered_date: business day on which it entered its present CRM stage
--   stage_changed_by: who moved it there: the person's name, else the CRM's id; NULL where the CRM does not tell
--   stage_changed_through: by what: person, plumbline, integration, workflow, import, merge, crm; NULL where the CRM does not tell
--   last_activity_date: business day of the last thing that people did
--   next_activity_date: business day of the next task or meeting
--   age_days: from creation to the last run, or to its closing
--   days_in_stage: from entering the stage to the last run; NULL when closed
--   days_since_activity: from the last activity to the last run; NULL when closed
--   next_step: what happens next, as the seller wrote it
--   contact_count: contacts attached; NULL when they could not be read
--   has_line_items: products are attached; NULL when that could not be read
--   close_date_pushes: moves of the close date to a later day
--   lost_reason: why it was lost, as people read it
--   score: hygiene score 0 to 100; NULL where there is none
--   hygiene_status: clean, needs_attention or at_risk
--   open_findings: findings open of rules that alert
--   worst_severity: of those findings
--   as_of: instant of the last load of the source
create or replace view bi.opportunity as
with day as (
    select source, last_synced_at, coalesce(business_timezone, 'UTC') as zone,
           (last_synced_at at time zone coalesce(business_timezone, 'UTC'))::date as today
    from core.source
),
score as (
    select scope_key as opportunity_key, score, status
    from quality.score
    where scope = 'opportunity'
      and as_of = (select max(as_of) from quality.score where scope = 'opportunity')
),
stage_move as (
    select o.opportunity_key, arg_max({'by': e.changed_by, 'through': e.changed_through}, e."at") as last
    from core.opportunity o
    join core.stage_event e on e.opportunity_key = o.opportunity_key and e.to_crm_stage = o.crm_stage
    group by o.opportunity_key
),
finding as (
    select f.opportunity_key, count(*) as findings,
           arg_min(f.severity, list_position(['critical', 'high', 'medium', 'low', 'info'], f.severity)) as worst
    from quality.finding f
    join quality.rule r using (rule_id)
    where f.state = 'open' and r.state = 'alert'
    group by f.opportunity_key
)
select o.source, o.crm, o.opportunity_key, o.opportunity_id, o.name, o.url, o.account_id, o.account_name, o.owner_id, o.owner_name,
       w.email as owner_email, w.team, o.owner_active, o.pipeline, o.stage, o.stage_rank, o.crm_stage, o.crm_stage_label,
       case when o.is_won then 'won' when o.is_closed then 'lost' else 'open' end as status, o.is_closed, o.is_won,
       o.forecast_category, coalesce(l.type, o.type) as type, o.amount, o.currency, o.amount_home,
       (o.amount_home::decimal(38, 2) * o.probability)::decimal(38, 2) as weighted_home, o.probability,
       (o.created_at at time zone d.zone)::date as created_date, o.close_date, (o.closed_at at time zone d.zone)::date as closed_date,
       (o.stage_entered_at at time zone d.zone)::date as stage_entered_date,
       coalesce(b.name, m.last.by) as stage_changed_by, m.last.through as stage_changed_through,
       (o.last_activity_at at time zone d.zone)::date as last_activity_date, (o.next_activity_at at time zone d.zone)::date as next_activity_date,
       date_diff('day', (o.created_at at time zone d.zone)::date, coalesce((o.closed_at at time zone d.zone)::date, d.today)) as age_days,
       if(o.is_closed, NULL, date_diff('day', (o.stage_entered_at at time zone d.zone)::date, d.today)) as days_in_stage,
       if(o.is_closed, NULL, date_diff('day', (o.last_activity_at at time zone d.zone)::date, d.today)) as days_since_activity,
       o.next_step, o.contact_count, o.has_line_items, o.close_date_pushes, coalesce(l.lost_reason, o.lost_reason) as lost_reason,
       s.score, s.status as hygiene_status, coalesce(f.findings, 0) as open_findings, f.worst as worst_severity, d.last_synced_at as as_of
from core.opportunity o
left join day d using (source)
left join core.owner w on w.owner_key = o.source || ':' || o.owner_id
left join core.opportunity_label l using (opportunity_key)
left join stage_move m using (opportunity_key)
left join core.owner b on b.owner_key = o.source || ':' || m.last.by
left join score s using (opportunity_key)
left join finding f using (opportunity_key)
where not o.is_deleted;
