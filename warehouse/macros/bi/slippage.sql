-- Of the deals that were open when a period began and were to be closed in it: how many are neither won nor lost when it ended. A deal that was deleted or
-- merged since is in neither. Per pipeline and owner of the beginning. Salesforce's Moved Out and Gong's pushed out also count deals that
-- came into the period after it had begun.
--   source: name of the source
--   pipeline: pipeline at the beginning
--   owner_id: the CRM's id of the owner at the beginning
--   due_deals: open at the end of the day before the period, close date within it
--   due_amount_home: their amount then; a deal without amount counts 0
--   slipped_deals: of them, those still open when the period ended
--   slipped_amount_home: their amount at the beginning
--   slippage_rate: slipped_deals / due_deals
--   slippage_rate_value: the same by amount
create or replace macro bi.slippage(period_start, period_end) as table
with due as (
    from bi.opportunity_at_end_of(period_start::date - 1)
    where not is_closed and not is_deleted and close_date between period_start::date and period_end::date
),
outcome as (
    select opportunity_key, is_closed, is_deleted from bi.opportunity_at_end_of(period_end)
),
judged as (
    select d.*, not o.is_closed as is_slipped from due d join outcome o using (opportunity_key) where not o.is_deleted
)
select split_part(opportunity_key, ':', 1) as source, pipeline, owner_id, count(*) as due_deals, coalesce(sum(amount_home), 0)::decimal(38, 2) as due_amount_home,
       count(*) filter (is_slipped) as slipped_deals, coalesce(sum(amount_home) filter (is_slipped), 0)::decimal(38, 2) as slipped_amount_home,
       slipped_deals / due_deals as slippage_rate, slipped_amount_home::double / nullif(due_amount_home, 0)::double as slippage_rate_value
from judged
group by all;
