-- Every closed deal that is not deleted, with what win rates, sizes and sales cycles are counted from. Closed is what the CRM's flag says; the day
-- is that of the last move into a closed stage, by history. Salesforce's and HubSpot's own reports go by the close date, which people type.
--   opportunity_key: see bi.opportunity
--   source: name of the source
--   pipeline: record type or pipeline
--   owner_id: the CRM's id of the owner, who has it now
--   owner_name: name of the owner
--   team: team of the owner
--   type: type of the deal, as delivered
--   is_won: won or lost
--   amount_home: amount in the home currency; NULL when it has none or no rate is known
--   created_date: business day on which the record was made
--   closed_date: business day on which it was closed
--   close_date: the close date that people set
--   closed_month: first of the month of closed_date
--   fiscal_year: of closed_date
--   fiscal_quarter: of closed_date
--   cycle_days: from created_date to closed_date; NULL where it was closed before it was made (imported)
--   crm_cycle_days: from created_date to close_date, as the CRMs' own reports count
--   reopened: how often it was opened again after having been closed
--   lost_reason: as delivered
create or replace view bi.closed_deal as
with reopening as (
    select opportunity_key, count(*) as times from core.stage_event where kind = 'reopen' group by opportunity_key
),
closed as (
    select o.*, (o.created_at at time zone coalesce(s.business_timezone, 'UTC'))::date as created_date,
           coalesce((o.closed_at at time zone coalesce(s.business_timezone, 'UTC'))::date, o.close_date) as closed_date
    from core.opportunity o
    join core.source s using (source)
    where o.is_closed and not o.is_deleted
)
select c.opportunity_key, c.source, c.pipeline, c.owner_id, c.owner_name, w.team, c.type, c.is_won, c.amount_home, c.created_date, c.closed_date,
       c.close_date, date_trunc('month', c.closed_date)::date as closed_month, d.fiscal_year, d.fiscal_quarter,
       if(c.closed_date >= c.created_date, date_diff('day', c.created_date, c.closed_date), NULL) as cycle_days,
       if(c.close_date >= c.created_date, date_diff('day', c.created_date, c.close_date), NULL) as crm_cycle_days,
       coalesce(r.times, 0) as reopened, c.lost_reason
from closed c
left join reopening r using (opportunity_key)
left join core.owner w on w.owner_key = c.source || ':' || c.owner_id
left join bi.calendar d on d.day = c.closed_date;
