-- What the CRMs say of the business: the currency that deals are not converted from, else that of the first organisation; its time zone.
select
    coalesce(
        (select currency from core.opportunity where fx_rate = 1 and currency is not null group by currency
            order by count(*) desc, currency limit 1),
        arg_min(currency, (first_synced_at, source)) filter (currency is not null)
    ) as currency,
    arg_min(timezone, (first_synced_at, source)) filter (timezone is not null) as zone
from core.source
