-- Limits from the org's own won deals, one row per source, pipeline, stage and metric, each with the rung of the ladder that gave it:
-- the pipeline's own deals, else all of the source's, else a built-in value. A percentile is claimed from a minimum of deals only
-- (30 for p90, 60 for p95, 15 for a median, 30 for a quartile). While a rung is thin (fewer than 100 deals) its value is drawn
-- towards its parent's: (n * own + 20 * parent) / (n + 20).
create or replace table plumbline_check.reference_stat as
with pipelines as (
    select distinct source, pipeline from core.opportunity where not is_deleted
),
dwell as (
    select won_deal.source, won_deal.pipeline, stage, days
    from plumbline_check.stage_spell
    join plumbline_check.won_deal using (opportunity_key)
    where not is_current and stage in ('qualified', 'discovery', 'proposal', 'negotiation')
),
measured as (   -- pipeline NULL: all pipelines of the source
    select 'dwell_p90' as metric, source, pipeline, stage, quantile_cont(days, 0.9) as value, count(*) as n
    from dwell group by grouping sets ((source, pipeline, stage), (source, stage))
    union all
    select 'cycle_p95', source, pipeline, '*', quantile_cont(cycle_days, 0.95), count(*)
    from plumbline_check.won_deal group by grouping sets ((source, pipeline), (source))
    union all
    select 'cycle_median', source, pipeline, '*', quantile_cont(cycle_days, 0.5), count(*)
    from plumbline_check.won_deal group by grouping sets ((source, pipeline), (source))
    union all
    select 'won_amount_median', source, pipeline, '*', quantile_cont(amount_home, 0.5), count(*)
    from plumbline_check.won_deal where amount_home > 0 group by grouping sets ((source, pipeline), (source))
    union all
    select 'won_amount_p75', source, pipeline, '*', quantile_cont(amount_home, 0.75), count(*)
    from plumbline_check.won_deal where amount_home > 0 group by grouping sets ((source, pipeline), (source))
),
of_pipeline as (select * from measured where pipeline is not null),
of_source as (select * from measured where pipeline is null),
asked(metric, stage, minimum, builtin) as (
    select 'dwell_p90', stage, 30, days from plumbline_check.builtin where metric = 'dwell_p90'
    union all
    select 'cycle_p95', '*', 60, (select any_value(days) from plumbline_check.builtin where metric = 'cycle_p95')
    union all
    values ('won_amount_median', '*', 15, null), ('won_amount_p75', '*', 30, null)
),
rungs as (
    select
        pipelines.source, pipelines.pipeline, asked.metric, asked.stage, asked.minimum,
        p.value as own, coalesce(p.n, 0) as own_n,
        s.value as org, coalesce(s.n, 0) as org_n,
        asked.builtin,
        case when asked.metric = 'cycle_p95' then   -- three usual cycles, before the built-in year
            case when pm.n >= 15 then 3 * pm.value when sm.n >= 15 then 3 * sm.value end
        end as three_medians,
        case when pm.n >= 15 then pm.n else sm.n end as median_n
    from pipelines
    cross join asked
    left join of_pipeline as p
        on p.source = pipelines.source and p.pipeline = pipelines.pipeline and p.metric = asked.metric and p.stage = asked.stage
    left join of_source as s on s.source = pipelines.source and s.metric = asked.metric and s.stage = asked.stage
    left join of_pipeline as pm on pm.source = pipelines.source and pm.pipeline = pipelines.pipeline and pm.metric = 'cycle_median'
    left join of_source as sm on sm.source = pipelines.source and sm.metric = 'cycle_median'
),
with_source as (
    select
        *,
        coalesce(three_medians, builtin) as fallback,
        case
            when org_n < minimum then coalesce(three_medians, builtin)
            when org_n < 100 and coalesce(three_medians, builtin) is not null
                then (org_n * org + 20 * coalesce(three_medians, builtin)) / (org_n + 20)
            else org
        end as org_value
    from rungs
),
final as (
    select
        source, coalesce(pipeline, '') as pipeline, stage, metric,
        case
            when own_n < minimum or own_n = org_n then org_value    -- the only pipeline of its source: nothing to draw it towards
            when own_n < 100 and org_value is not null then (own_n * own + 20 * org_value) / (own_n + 20)
            else own
        end as value,
        case
            when own_n >= minimum then own_n
            when org_n >= minimum or three_medians is null then org_n
            else median_n
        end as n,
        case
            when own_n >= minimum then 'pipeline'
            when org_n >= minimum then 'source'
            when three_medians is not null then 'three_medians'
            else 'default'
        end as rung
    from with_source
)
select source, pipeline, stage, metric, value::decimal(18, 2) as value, n, rung
from final
where value is not null;
