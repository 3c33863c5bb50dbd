-- What became of the open pipeline between the ends of two business days: opening + movements = closing, exactly, in each group and in
-- every sum of groups. In scope is what is open, not deleted, and to be closed within the window. A deal that another owner or pipeline has
-- by now leaves one group (transferred_out) and comes to another (transferred_in), one in another currency likewise (restated_out, restated_in):
-- it is won or lost where it was then. Compares two end points: what went and came back between them is not seen. An amount that is not known
-- counts as 0. Salesforce's Moved Out looks at
-- close dates of the next six months only; Clari's New is what did not exist before, as here; Gong shows owner changes apart, as here.
--   source: name of the source
--   pipeline: pipeline of the group
--   owner_id: the CRM's id of the group's owner
--   currency: ISO 4217, of the group's deals
--   bucket: opening, then new, restored, reopened, transferred_in, pulled_in, pushed_in, restated_in, increased, decreased, fx (the home amount moved, by another rate, not the deal's own), deleted, won, lost, transferred_out, pushed_out, pulled_out, restated_out, then closing
--   bucket_order: place of the bucket in that order, from 1, to sort by
--   deals: deals booked; signed like the amount, 0 for a change of amount
--   amount: in the group's currency; leaving is negative
--   amount_home: the same in the home currency
create or replace macro bi.pipeline_movement(from_date, to_date, window_start, window_end) as table
with time_window as (
    select window_start::date as w0, window_end::date as w1
),
before as (
    select opportunity_key, pipeline, owner_id, currency, amount, amount_home, close_date, is_closed, is_deleted from bi.opportunity_at_end_of(from_date)
),
after as (
    select opportunity_key, pipeline, owner_id, currency, amount, amount_home, close_date, is_closed, is_won, is_deleted
    from bi.opportunity_at_end_of(to_date)
),
-- All others are in no row: most of the deals of a company that has been at it for years.
concerned as (
    select opportunity_key from before where not is_closed and not is_deleted and close_date between window_start::date and window_end::date
    union
    select opportunity_key from after where close_date between window_start::date and window_end::date
),
pair as (
    select c.opportunity_key,
           b.opportunity_key is not null as existed, e.opportunity_key is not null as exists_now,
           coalesce(b.amount, 0) as amount_before, coalesce(e.amount, 0) as amount_after,
           coalesce(b.amount_home, 0) as home_before, coalesce(e.amount_home, 0) as home_after,
           coalesce(b.is_closed, false) as was_closed, coalesce(e.is_closed, false) as is_closed, coalesce(e.is_won, false) as is_won,
           coalesce(b.is_deleted, false) as was_deleted, coalesce(e.is_deleted, false) as is_deleted,
           b.close_date as date_before, e.close_date as date_after,
           {'pipeline': b.pipeline, 'owner_id': b.owner_id, 'currency': b.currency} as group_before,
           {'pipeline': e.pipeline, 'owner_id': e.owner_id, 'currency': e.currency} as group_after,
           b.currency is distinct from e.currency and (b.pipeline, b.owner_id) is not distinct from (e.pipeline, e.owner_id) as is_recoined
    from concerned c
    left join before b using (opportunity_key)
    left join after e using (opportunity_key)
),
-- One row per deal and group that it is or was in.
part as (
    select p.*, false as is_elsewhere, false as was_elsewhere, if(exists_now, group_after, group_before) as grouped
    from pair p
    where not existed or not exists_now or group_before is not distinct from group_after
    union all
    select p.*, true, false, group_before from pair p where existed and exists_now and group_before is distinct from group_after
    union all
    select p.*, false, true, group_after from pair p where existed and exists_now and group_before is distinct from group_after
),
scoped as (
    select p.*, m.w0, m.w1,
           existed and not was_elsewhere and not was_closed and not was_deleted and coalesce(date_before between m.w0 and m.w1, false) as in_before,
           exists_now and not is_elsewhere and not p.is_closed and not p.is_deleted and coalesce(date_after between m.w0 and m.w1, false) as in_after,
           -- Closed within the time though it was not in scope when it began: it came and it went, else what was won would not be what was booked.
           exists_now and not is_elsewhere and p.is_closed and not was_closed and not (was_deleted and p.is_deleted)
               and coalesce(date_after between m.w0 and m.w1, false) as closed_here
    from part p, time_window m
),
booked as (
    select *,
           case when not in_before and (in_after or closed_here) then
                case when not existed then 'new' when was_deleted then 'restored' when was_closed then 'reopened' when was_elsewhere then if(is_recoined, 'restated_in', 'transferred_in')
                     when date_before > w1 then 'pulled_in' when date_before < w0 then 'pushed_in' else 'restated_in' end end as came,
           case when in_before and not in_after or (closed_here and not in_before) then
                case when is_deleted then 'deleted' when is_elsewhere then if(is_recoined, 'restated_out', 'transferred_out')
                     when is_closed and is_won then 'won' when is_closed then 'lost'
                     when date_after > w1 then 'pushed_out' when date_after < w0 then 'pulled_out' else 'restated_out' end end as went
    from scoped
),
movement as (
    select opportunity_key, grouped, unnest([
        if(in_before, {'bucket': 'opening', 'deals': 1, 'amount': amount_before, 'home': home_before}, NULL),
        if(came is not null, {'bucket': came, 'deals': 1, 'amount': amount_after, 'home': home_after}, NULL),
        if(in_before and (in_after or went = 'won') and (amount_before, home_before) <> (amount_after, home_after),
           {'bucket': case when amount_after = amount_before then 'fx' when amount_after > amount_before then 'increased' else 'decreased' end,
            'deals': 0, 'amount': amount_after - amount_before, 'home': home_after - home_before}, NULL),
        if(went is not null and (went = 'won' or not in_before), {'bucket': went, 'deals': -1, 'amount': -amount_after, 'home': -home_after}, NULL),
        if(went is not null and went <> 'won' and in_before, {'bucket': went, 'deals': -1, 'amount': -amount_before, 'home': -home_before}, NULL),
        if(in_after, {'bucket': 'closing', 'deals': 1, 'amount': amount_after, 'home': home_after}, NULL)
    ]) as row
    from booked
)
select split_part(opportunity_key, ':', 1) as source, grouped.pipeline as pipeline, grouped.owner_id as owner_id, grouped.currency as currency,
       "row".bucket as bucket,
       list_position(['opening', 'new', 'restored', 'reopened', 'transferred_in', 'pulled_in', 'pushed_in', 'restated_in', 'increased', 'decreased', 'fx', 'deleted',
                      'won', 'lost', 'transferred_out', 'pushed_out', 'pulled_out', 'restated_out', 'closing'], "row".bucket)::integer as bucket_order,
       sum("row".deals)::bigint as deals, sum("row".amount)::decimal(38, 2) as amount,
       sum("row".home)::decimal(38, 2) as amount_home
from movement
where "row" is not null
group by all;
