-- What the warehouse holds, counted aloud: the open deals, those outside the score, and those that no sum of money can contain.
select count(*) as deals, sum(amount_home) as amount, count(*) filter (where is_counted) as counted,
    count(*) filter (where not is_counted) as uncounted, sum(amount_home) filter (where not is_counted) as uncounted_amount,
    count(*) filter (where is_counted and not is_at_risk) as trusted, count(*) filter (where is_at_risk) as at_risk,
    count(*) filter (where amount is null) as without_amount,
    count(*) filter (where amount is not null and amount_home is null) as without_rate,
    count(*) filter (where close_date is null) as without_close_date, count(*) filter (where owner_id is null) as without_owner,
    count(*) filter (where contact_count is null) as contacts_unread,
    count(*) filter (where activity_capability = 'none') as activities_unread,
    (select count(*) from core.opportunity) as known,
    (select count(*) from core.opportunity where is_closed and not is_deleted) as closed,
    (select count(*) from core.opportunity where is_deleted) as deleted
from report_deal
