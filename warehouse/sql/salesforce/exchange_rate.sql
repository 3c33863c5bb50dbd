-- new_exchange_rate: home currency units per unit of each currency, from CurrencyType and DatedConversionRate.
-- Salesforce gives units per one unit of the corporate currency, so the rate to any home currency is the quotient of two of them.
create or replace temp table new_exchange_rate as
with currency as (
    select unnest(json_transform(payload, '{"IsoCode": "VARCHAR", "ConversionRate": "VARCHAR"}'))
    from raw.salesforce_currency_type
    where source = getvariable('source') and not is_deleted
),
flat as (
    select IsoCode as currency, try_cast(ConversionRate as double) as units from currency
    where try_cast(ConversionRate as double) > 0
),
dated_text as (
    select unnest(json_transform(payload, '{"IsoCode": "VARCHAR", "ConversionRate": "VARCHAR", "StartDate": "VARCHAR",
        "NextStartDate": "VARCHAR"}'))
    from raw.salesforce_dated_conversion_rate
    where source = getvariable('source') and not is_deleted
),
dated as (
    select IsoCode as currency, try_cast(ConversionRate as double) as units, try_cast(StartDate as date) as since,
           coalesce(try_cast(NextStartDate as date), '9999-12-31'::date) as until
    from dated_text
    where try_cast(ConversionRate as double) > 0 and try_cast(StartDate as date) is not null
),
span as (
    select currency, min(since) as since, max(until) as until from dated group by currency
),
-- The flat rate holds where no dated one does: before the first, after the last, or always.
units as (
    select currency, units, since, until from dated
    union all
    select f.currency, f.units, '0001-01-01'::date, coalesce(s.since, '9999-12-31'::date)
    from flat f left join span s using (currency)
    where s.since is null or s.since > '0001-01-01'::date
    union all
    select f.currency, f.units, s.until, '9999-12-31'::date
    from flat f join span s using (currency)
    where s.until < '9999-12-31'::date
),
home as (
    select units, since, until from units where currency = getvariable('home_currency')
),
start as (
    select currency, since from units
    union
    select u.currency, h.since from (select distinct currency from units) u cross join home h
),
quotient as (
    select s.currency, s.since as valid_from, lead(s.since) over (partition by s.currency order by s.since) as valid_to,
           h.units / u.units as rate
    from start s
    join units u on u.currency = s.currency and s.since >= u.since and s.since < u.until
    join home h on s.since >= h.since and s.since < h.until
)
select getvariable('source') as source, currency, valid_from, valid_to, rate::decimal(24, 15) as rate
from quotient
where currency <> getvariable('home_currency');
