-- The home currency: the one that deals are not converted from.
select currency from core.opportunity where fx_rate = 1 and currency is not null group by currency order by count(*) desc, currency limit 1
