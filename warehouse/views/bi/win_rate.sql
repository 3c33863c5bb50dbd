-- Wins and losses per pipeline, owner and month of closing; a month that lies in two fiscal quarters has a row for each. Counts and sums may be added up over rows; rates may not: take sum(won_deals) / sum(won_deals +
-- lost_deals). Deals that nobody closes are in no rate, so hoarding flatters it: see bi.win_rate_cohort.
--   source: name of the source
--   pipeline: record type or pipeline
--   owner_id: the CRM's id of the owner
--   owner_name: name of the owner
--   team: team of the owner
--   closed_month: first of the month
--   fiscal_year: of the days of closing
--   fiscal_quarter: of the days of closing
--   won_deals: deals won
--   lost_deals: deals lost
--   won_amount_home: their amount; a deal without amount counts 0
--   lost_amount_home: their amount
--   closed_without_amount: deals among both that have no amount in the home currency
--   win_rate_count: won / (won + lost), by number
--   win_rate_value: the same by amount; NULL when nothing has one
create or replace view bi.win_rate as
select source, pipeline, owner_id, any_value(owner_name) as owner_name, any_value(team) as team, closed_month, fiscal_year, fiscal_quarter,
       count(*) filter (is_won) as won_deals, count(*) filter (not is_won) as lost_deals,
       coalesce(sum(amount_home) filter (is_won), 0)::decimal(38, 2) as won_amount_home,
       coalesce(sum(amount_home) filter (not is_won), 0)::decimal(38, 2) as lost_amount_home,
       count(*) filter (amount_home is null) as closed_without_amount,
       won_deals / count(*) as win_rate_count,
       won_amount_home::double / nullif(won_amount_home + lost_amount_home, 0)::double as win_rate_value
from bi.closed_deal
group by source, pipeline, owner_id, closed_month, fiscal_year, fiscal_quarter;
