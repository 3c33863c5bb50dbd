-- The open deals of today, from qualified to negotiation, by age: from the day on which the record was made to the day of the last load. Counts and sums may be
-- added up. A deal is old where it is older than nine of ten won deals of its pipeline were when they closed (bi.velocity, the last twelve months); nothing is
-- called old in a pipeline with fewer than 30 of them. HubSpot's and Salesforce's age is the same; Pipedrive's rotting counts the days in a stage.
--   source: name of the source
--   pipeline: record type or pipeline
--   owner_id: the CRM's id of the owner
--   owner_name: name of the owner
--   age_band: 0-30, 31-60, 61-90, 91-180, 181-365 or over 365 days
--   age_from: first day of the band, to sort by
--   deals: open deals
--   amount_home: their amount; a deal without amount counts 0
--   open_without_amount: deals of them that have no amount in the home currency
--   p90_cycle_days: 90th percentile of the pipeline's sales cycle; NULL where fewer than 30 deals were won
--   old_deals: of the deals, those that are older; NULL where that is not known
--   old_amount_home: their amount
create or replace view bi.ageing as
with deal as (
    select o.source, o.pipeline, o.owner_id, o.owner_name, o.age_days, o.amount_home, if(v.won_deals >= 30, v.p90_cycle_days, NULL) as p90_cycle_days,
           case when o.age_days <= 30 then 0 when o.age_days <= 60 then 31 when o.age_days <= 90 then 61 when o.age_days <= 180 then 91
                when o.age_days <= 365 then 181 else 366 end as age_from
    from bi.opportunity o
    left join bi.velocity v on v.source = o.source and v.pipeline is not distinct from o.pipeline
    where not o.is_closed and o.stage in ('qualified', 'discovery', 'proposal', 'negotiation')
)
select source, pipeline, owner_id, any_value(owner_name) as owner_name,
       case age_from when 0 then '0-30' when 31 then '31-60' when 61 then '61-90' when 91 then '91-180' when 181 then '181-365' else 'over 365' end as age_band,
       age_from, count(*) as deals, coalesce(sum(amount_home), 0)::decimal(38, 2) as amount_home,
       count(*) filter (amount_home is null) as open_without_amount, any_value(p90_cycle_days) as p90_cycle_days,
       if(any_value(p90_cycle_days) is null, NULL, count(*) filter (age_days > p90_cycle_days)) as old_deals,
       if(any_value(p90_cycle_days) is null, NULL, coalesce(sum(amount_home) filter (age_days > p90_cycle_days), 0))::decimal(38, 2) as old_amount_home
from deal
group by source, pipeline, owner_id, age_from;
