-- Open deals with what counts against them: alert findings that are not waived. Points are deducted once per group of related rules.
-- Counted are the deals that the amounts and the score of the whole pipeline are made of: those from qualified to negotiation.
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
),
open_deal as (
    select o.*, s.score, coalesce(d.points, 0) as points, coalesce(d.severity_rank, 0) as severity_rank,
        coalesce(d.issues, 0) as issues, d.opportunity_key is not null as is_flagged,
        $run is not null and coalesce(o.stage_rank between 1 and 4, false) as is_counted
    from core.opportunity o
    left join by_deal d on d.opportunity_key = o.opportunity_key
    left join scored s on s.opportunity_key = o.opportunity_key
    where not o.is_closed and not o.is_deleted
)
select opportunity_key, source, opportunity_id, url, name, account_name, owner_id, owner_name, owner_active, pipeline, crm_stage,
    coalesce(crm_stage_label, crm_stage) as stage_label, stage, amount, currency, amount_home, probability, close_date,
    activity_capability, contact_count, score, points, severity_rank, issues, is_counted, is_flagged, severity_rank >= 3 and is_counted as is_at_risk,
    date_diff('day', (created_at at time zone $zone)::date, $today::date) as age_days,
    date_diff('day', (stage_entered_at at time zone $zone)::date, $today::date) as stage_days
from open_deal
