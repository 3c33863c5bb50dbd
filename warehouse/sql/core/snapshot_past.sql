-- bi.pipeline_snapshot of past business days (temporary table `past_day`: day), from the deals' versions as each day ended.
create or replace temp table past as
select p.day, bi.end_of_day(p.day) as instant, bi.end_of_day(p.day) > (select min(as_of) from quality.run) as is_judged from past_day p;

delete from bi.pipeline_snapshot s using past p where s.snapshot_date = p.day;

insert into bi.pipeline_snapshot by name
with alerting as (
    select f.opportunity_key, f.first_seen_at, f.resolved_at from quality.finding f join quality.rule r using (rule_id) where r.state = 'alert'
),
flagged as (
    select distinct p.day, f.opportunity_key
    from past p
    join alerting f on f.first_seen_at < p.instant and (f.resolved_at >= p.instant or f.resolved_at is null)
),
open_deal as (
    select p.day, p.instant, p.is_judged, v.*, split_part(v.opportunity_key, ':', 1) as source
    from past p
    join core.opportunity_version v on v.valid_from < p.instant and (v.valid_to >= p.instant or v.valid_to is null)
    where not v.is_closed and not v.is_deleted
)
select o.day as snapshot_date, o.source, o.pipeline, o.stage, o.owner_id, any_value(w.name) as owner_name, o.currency,
       count(*) as deals, sum(o.amount)::decimal(38, 2) as amount, sum(o.amount_home)::decimal(38, 2) as amount_home,
       sum(o.amount_home::decimal(38, 2) * o.probability)::decimal(38, 2) as weighted_home,
       count(*) filter (o.amount is null) as deals_without_amount,
       count(*) filter (o.amount is not null and o.amount_home is null) as deals_without_rate,
       if(any_value(o.is_judged), count(f.opportunity_key), NULL) as flagged_deals,
       if(any_value(o.is_judged), coalesce(sum(o.amount_home) filter (f.opportunity_key is not null), 0), NULL)::decimal(38, 2) as flagged_amount_home,
       any_value(o.instant) as taken_at, true as is_rebuilt
from open_deal o
left join flagged f on f.day = o.day and f.opportunity_key = o.opportunity_key
left join core.owner w on w.owner_key = o.source || ':' || o.owner_id
group by o.day, o.source, o.pipeline, o.stage, o.owner_id, o.currency;
