-- new_exchange_rate: home currency units per unit of each currency, from the portal's rates. Each is the worth of one unit in the company's
-- currency from an instant on; the last of a business day is that day's. One that is to hold later comes when its day has come.
create or replace temp table new_exchange_rate as
with told as (
    select id, unnest(json_transform(payload, '{"fromCurrencyCode": "VARCHAR", "toCurrencyCode": "VARCHAR", "conversionRate": "VARCHAR",
        "effectiveAt": "VARCHAR"}'))
    from raw.hubspot_exchange_rate
    where source = getvariable('source') and not is_deleted
),
dated as (
    select fromCurrencyCode as currency, try_cast(conversionRate as double) as worth, instant_of(effectiveAt) as effective_at, id
    from told
    where try_cast(conversionRate as double) > 0 and coalesce(toCurrencyCode, getvariable('org_currency')) = getvariable('org_currency')
      and instant_of(effectiveAt) <= getvariable('now') and fromCurrencyCode <> getvariable('org_currency')
),
daily as (
    select currency, (effective_at at time zone getvariable('timezone'))::date as day, arg_max(worth, (effective_at, try_cast(id as bigint))) as worth
    from dated
    group by all
),
-- The first rate holds for what was before it too: a portal has no deal in a currency that it does not know.
worth as (
    select currency, if(lag(day) over days is null, '0001-01-01'::date, day) as since, coalesce(lead(day) over days, '9999-12-31'::date) as until, worth
    from daily
    window days as (partition by currency order by day)
    union all
    select getvariable('org_currency'), '0001-01-01'::date, '9999-12-31'::date, 1
),
home as (
    select since, until, worth from worth where currency = getvariable('home_currency')
),
start as (
    select currency, since from worth
    union
    select w.currency, h.since from (select distinct currency from worth) w cross join home h
)
select getvariable('source') as source, s.currency, s.since as valid_from, lead(s.since) over (partition by s.currency order by s.since) as valid_to,
       (w.worth / h.worth)::decimal(24, 15) as rate
from start s
join worth w on w.currency = s.currency and s.since >= w.since and s.since < w.until
join home h on s.since >= h.since and s.since < h.until
where s.currency <> getvariable('home_currency')
  -- A portal that tells no rates has none, not even of its own currency.
  and exists (from dated);
