-- bi.pipeline_snapshot: the rows of the business day, anew.
delete from bi.pipeline_snapshot where snapshot_date = getvariable('business_date');

insert into bi.pipeline_snapshot by name
with flagged as (
    -- Deals with an open finding of a rule that alerts; rules that only observe flag nothing.
    select distinct f.opportunity_key
    from quality.finding f
    join quality.rule r using (rule_id)
    where f.state = 'open' and r.state = 'alert'
)
select getvariable('business_date') as snapshot_date, o.source, o.pipeline, o.stage, o.owner_id, any_value(o.owner_name) as owner_name, o.currency,
       count(*) as deals, sum(o.amount)::decimal(38, 2) as amount, sum(o.amount_home)::decimal(38, 2) as amount_home,
       sum(o.amount_home::decimal(38, 2) * o.probability)::decimal(38, 2) as weighted_home,
       count(*) filter (o.amount is null) as deals_without_amount,
       count(*) filter (o.amount is not null and o.amount_home is null) as deals_without_rate,
       count(f.opportunity_key) as flagged_deals,
       coalesce(sum(o.amount_home) filter (f.opportunity_key is not null), 0)::decimal(38, 2) as flagged_amount_home, getvariable('now') as taken_at, false as is_rebuilt
from core.opportunity o
left join flagged f using (opportunity_key)
where not o.is_closed and not o.is_deleted
group by o.source, o.pipeline, o.stage, o.owner_id, o.currency;
