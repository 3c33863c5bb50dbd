-- planned_change: each of our fields whose value in the CRM differs from what it should be.
-- Variables: now, timezone, appear_after, sources (list to plan for), fields (list of source || ':' || field that the CRM has).
create or replace temp table planned_change as
with alert as (
    select f.opportunity_key, f.rule_id, r.title, r.audience, f.first_seen_at, f.severity, coalesce(r.grp, f.rule_id) as grp,
           case f.severity when 'critical' then 30 when 'high' then 15 when 'medium' then 8 when 'low' then 3 else 0 end as points,
           -- A flag shows after some checks in a row, so that nobody is bothered by what is mended overnight; a critical one at once.
           f.severity = 'critical' or f.runs_seen >= getvariable('appear_after') as shows
    from quality.finding f
    join quality.rule r using (rule_id)
    where f.state = 'open' and r.state = 'alert'
),
-- Correlated rules of one group count once, as in the score.
grouped as (
    select opportunity_key, grp, max(points) as points from alert where shows group by opportunity_key, grp
),
deducted as (
    select opportunity_key, sum(points) as points from grouped group by opportunity_key
),
shown as (
    select opportunity_key,
           string_agg(rule_id, ';' order by rule_id) as issues,
           -- The worst; of equals what the deal's owner can mend, before what an admin must.
           left(arg_max(title, (points, audience = 'rep', rule_id)), 255) as top_issue,
           (min(first_seen_at) at time zone getvariable('timezone'))::date as since,
           bool_or(severity = 'critical') as critical, bool_or(severity in ('critical', 'high')) as grave
    from alert
    where shows
    group by opportunity_key
),
fresh as (
    select distinct opportunity_key from alert where not shows
),
score as (
    select scope_key as opportunity_key
    from quality.score
    where scope = 'opportunity' and score is not null
      and as_of = (select max(as_of) from quality.score where scope = 'opportunity')
),
judged as (
    -- Where no rule alerts (in the shadow days) a deal without a flag is not clean: nothing is said of it.
    from score where exists (from quality.rule where state = 'alert')
),
open_deal as (
    select o.opportunity_key, o.source, o.crm, o.opportunity_id, greatest(0, 100 - coalesce(d.points, 0)) as score, s.issues, s.top_issue, s.since,
           coalesce(s.critical, false) as critical, coalesce(s.grave, false) as grave, f.opportunity_key is not null as is_fresh
    from core.opportunity o
    semi join judged using (opportunity_key)
    left join shown s using (opportunity_key)
    left join deducted d using (opportunity_key)
    left join fresh f using (opportunity_key)
    where not o.is_closed and not o.is_deleted
),
wanted as (
    select d.opportunity_key, d.source, d.crm, d.opportunity_id,
           case when d.critical or d.score < 60 then 'at_risk' when d.grave or d.score < 90 then 'needs_attention' else 'clean' end as status,
           -- In steps of five it changes rarely, and the CRM's history stays readable.
           ((d.score / 5.0).round() * 5)::integer as score, d.top_issue, d.issues,
           -- Set once per episode: the date that stands there stays while any issue shows.
           if(d.issues is null, NULL, coalesce(h.flagged_since, d.since)) as flagged_since
    from open_deal d
    left join core.crm_flag h using (opportunity_key)
    -- Nothing shows yet but something was found: neither a flag nor a clean bill is true tonight.
    where not (d.issues is null and d.is_fresh and h.issues is null and coalesce(h.status, 'clean') = 'clean')
    union all by name
    -- A closed deal is cleared, once; so is one that is judged no longer, put on hold for instance.
    select o.opportunity_key, o.source, o.crm, o.opportunity_id, NULL as status, NULL as score, NULL as top_issue, NULL as issues,
           NULL as flagged_since
    from core.opportunity o
    semi join core.crm_flag using (opportunity_key)
    where not o.is_deleted
      and (o.is_closed or (exists (from score) and o.opportunity_key not in (select opportunity_key from judged)))
),
field as (
    select w.opportunity_key, w.source, w.crm, w.opportunity_id, f.field, f.old_value, f.new_value
    from wanted w
    left join core.crm_flag h using (opportunity_key),
    lateral (
        values ('status', h.status, w.status), ('score', h.score::varchar, w.score::varchar), ('top_issue', h.top_issue, w.top_issue),
               ('issues', h.issues, w.issues), ('flagged_since', h.flagged_since::varchar, w.flagged_since::varchar)
    ) as f (field, old_value, new_value)
)
select source, crm, opportunity_key, opportunity_id, field, old_value, new_value
from field
where old_value is distinct from new_value
  and list_contains(getvariable('sources'), source)
  and list_contains(getvariable('fields'), source || ':' || field);
