-- What each owner's pipeline said at the end of a lock day of what a period would bring, and what it brought. A forecast is what was won in the period by then, and of
-- the open deals that were to be closed in it: commit those of category commit, best_case also best_case and most_likely, pipeline all but the omitted ones, weighted
-- all by the CRM's probability. The lock day is read from history: it stays as it was, whatever is edited later. HubSpot's and Clari's forecasts are what managers
-- submitted; this is what the deals said.
--   source: name of the source
--   owner_id: the CRM's id of the owner: on the lock day for the open deals, at the period's end for what was won
--   method: commit, best_case, pipeline or weighted
--   deals: deals in the forecast
--   forecast_home: the forecast
--   actual_home: won in the period by its end, or by the last load while it lasts
--   error_home: forecast_home - actual_home
--   without_amount: deals in the forecast that have no amount in the home currency: they count 0
create or replace macro bi.forecast(lock_day, period_start, period_end) as table
with open_deal as (
    select split_part(opportunity_key, ':', 1) as source, owner_id, amount_home::decimal(38, 2) as amount_home, amount_home::decimal(38, 2) * probability as weighted,
           forecast_category as category
    from bi.opportunity_at_end_of(lock_day)
    where not is_closed and not is_deleted and close_date between period_start::date and period_end::date
      and stage in ('qualified', 'discovery', 'proposal', 'negotiation') and forecast_category is distinct from 'omitted'
),
said as (
    select source, owner_id, amount_home, amount_home is null as has_none, ['commit', 'best_case', 'pipeline', 'weighted'] as methods
    from bi.won_by(least(lock_day::date, period_end::date), period_start, period_end)
    union all
    select source, owner_id, amount_home, amount_home is null,
           case when category in ('commit', 'closed') then ['commit', 'best_case', 'pipeline'] when category in ('best_case', 'most_likely') then ['best_case', 'pipeline']
                else ['pipeline'] end
    from open_deal
    union all
    select source, owner_id, weighted, weighted is null, ['weighted'] from open_deal
),
booked as (
    select source, owner_id, coalesce(sum(amount_home), 0) as actual from bi.won_by(period_end, period_start, period_end) group by all
),
forecast as (
    select source, owner_id, method, count(*) as deals, coalesce(sum(amount_home), 0) as forecast, count(*) filter (has_none) as without_amount
    from (select source, owner_id, amount_home, has_none, unnest(methods) as method from said)
    group by all
),
-- Who forecast nothing and won something is wrong by all of it.
owner as (
    select source, owner_id, unnest(['commit', 'best_case', 'pipeline', 'weighted']) as method
    from (select source, owner_id from forecast union select source, owner_id from booked)
)
select o.source, o.owner_id, o.method, coalesce(f.deals, 0) as deals, coalesce(f.forecast, 0)::decimal(38, 2) as forecast_home,
       coalesce(b.actual, 0)::decimal(38, 2) as actual_home, (coalesce(f.forecast, 0) - coalesce(b.actual, 0))::decimal(38, 2) as error_home,
       coalesce(f.without_amount, 0) as without_amount
from owner o
left join forecast f on f.source = o.source and f.owner_id is not distinct from o.owner_id and f.method = o.method
left join booked b on b.source = o.source and b.owner_id is not distinct from o.owner_id;
