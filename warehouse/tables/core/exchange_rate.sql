-- What one unit of a currency is in the home currency, from a day on.
create table if not exists core.exchange_rate (
    source              varchar not null,       -- name of the source whose rates these are
    currency            varchar not null,       -- ISO 4217
    valid_from          date not null,          -- first day
    valid_to            date,                   -- first day it no longer holds; NULL: still in force
    rate                decimal(24, 15) not null -- home currency units per unit of `currency`
);
