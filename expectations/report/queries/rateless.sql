-- Currencies of open deals that no exchange rate brings into the home currency.
select source, currency, count(*) as deals, sum(amount) as amount
from report_deal
where amount is not null and amount_home is null
group by source, currency
order by deals desc, source, currency
limit $limit
