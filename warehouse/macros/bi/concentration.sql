-- How much of the open pipeline of a period hangs on few deals, at the end of a business day: open deals from qualified to negotiation that were to be closed in the
-- period. Of all, each source, pipeline and owner: shares do not add up.
--   scope: all, source, pipeline or owner
--   source: name of the source; NULL for all
--   scope_key: 'all', the source, the pipeline, or the CRM's id of the owner
--   deals: open deals to be closed in the period
--   amount_home: their amount; a deal without amount counts 0
--   top_deal_share: share of the largest deal in it
--   top_five_share: share of the five largest deals
--   herfindahl: sum of the squared shares, from 1 / deals (all alike) to 1 (one deal is everything)
create or replace macro bi.concentration(day, period_start, period_end) as table
with deal as (
    select split_part(opportunity_key, ':', 1) as source, pipeline, owner_id, coalesce(amount_home, 0)::decimal(38, 2) as amount_home
    from bi.opportunity_at_end_of(day)
    where not is_closed and not is_deleted and stage in ('qualified', 'discovery', 'proposal', 'negotiation')
      and close_date between period_start::date and period_end::date and close_date >= day::date
),
scoped as (
    select unnest([{'scope': 'all', 'source': NULL, 'scope_key': 'all'}, {'scope': 'source', 'source': source, 'scope_key': source},
                   {'scope': 'pipeline', 'source': source, 'scope_key': pipeline}, {'scope': 'owner', 'source': source, 'scope_key': owner_id}],
                  recursive := true), amount_home
    from deal
),
summed as (
    select scope, source, scope_key, count(*) as deals, sum(amount_home)::decimal(38, 2) as amount_home, max(amount_home, 5) as largest,
           sum(amount_home::double * amount_home::double) as squares
    from scoped
    group by scope, source, scope_key
)
select scope, source, scope_key, deals, amount_home, largest[1]::double / nullif(amount_home, 0)::double as top_deal_share,
       list_sum(largest)::double / nullif(amount_home, 0)::double as top_five_share, squares / nullif(amount_home::double * amount_home::double, 0) as herfindahl
from summed;
