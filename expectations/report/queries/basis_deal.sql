-- Open deals with what counts against them: alert findings that are not waived. Points are deducted once per group of related rules.
create or replace temp table report_deal as
with by_group as (
    select opportunity_key, grp, max(points) as points, max(severity_rank) as severity_rank, count(*) as issues
    from report_finding
    where counts
    group by all
),
by_deal as (
    select opportunity_key, least(100, sum(points)) as points, max(severity_rank) as severity_rank, sum(issues) as issues
    from by_group
    group by all
),
scored as (
    select scope_key as opportunity_key, score
    from quality.score
    where run_id = $run and scope = 'opportunity'
)
select o.opportunity_key, o.source, o.opportunity_id, o.url, o.name, o.account_name, o.owner_id, o.owner_name, o.owner_active, o.pipeline,
    o.crm_stage, coalesce(o.crm_stage_label, o.crm_stage) as stage_label, o.stage, o.amount, o.currency, o.amount_home, o.probability,
    o.close_date, o.activity_capability, o.contact_count, s.score, s.opportunity_key is not null as is_scored,
    coalesce(d.points, 0) as points, coalesce(d.severity_rank, 0) as severity_rank, coalesce(d.issues, 0) as issues,
    d.opportunity_key is not null as is_flagged, coalesce(d.severity_rank, 0) >= 3 and s.opportunity_key is not null as is_at_risk,
    date_diff('day', (o.created_at at time zone $zone)::date, $today::date) as age_days,
    date_diff('day', (o.stage_entered_at at time zone $zone)::date, $today::date) as stage_days
from core.opportunity o
left join by_deal d on d.opportunity_key = o.opportunity_key
left join scored s on s.opportunity_key = o.opportunity_key
where not o.is_closed and not o.is_deleted
