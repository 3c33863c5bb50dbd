-- How many of the deals that were open when a span of business days began were pushed within it (bi.push_event), per pipeline and owner of the beginning.
-- Salesforce's PushCount is a count of a deal's whole life, into later calendar months only; HubSpot has none.
--   source: name of the source
--   pipeline: pipeline at the beginning
--   owner_id: the CRM's id of the owner at the beginning
--   open_deals: open deals at the end of the day before from_date
--   pushed_deals: of them, those pushed at least once from from_date to to_date
--   pushes: pushes of them
--   mean_push_days: mean length of a push
--   push_rate: pushed_deals / open_deals
create or replace macro bi.push_rate(from_date, to_date) as table
with opening as (
    from bi.opportunity_at_end_of(from_date::date - 1) where not is_closed and not is_deleted
),
pushed as (
    select opportunity_key, count(*) as times, sum(days) as days from bi.push_event
    where pushed_date between from_date::date and to_date::date
    group by opportunity_key
)
select split_part(o.opportunity_key, ':', 1) as source, o.pipeline, o.owner_id, count(*) as open_deals, count(p.opportunity_key) as pushed_deals,
       coalesce(sum(p.times), 0)::bigint as pushes, sum(p.days) / sum(p.times) as mean_push_days, count(p.opportunity_key) / count(*) as push_rate
from opening o
left join pushed p using (opportunity_key)
group by all;
