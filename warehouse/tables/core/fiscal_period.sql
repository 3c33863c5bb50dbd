-- The fiscal periods of companies whose periods are not months (4-4-5 weeks, 13 periods): from the CSV that the configuration names ([metrics] periods), or
-- written here by hand where it names none. Days that no row holds go by the month in which the fiscal year begins.
create table if not exists core.fiscal_period (
    fiscal_year         integer not null,       -- number of the fiscal year
    fiscal_quarter      integer not null,       -- 1 to 4
    fiscal_period       integer not null,       -- 1 to 12 or 13, counted through the year
    period_start        date not null,          -- first business day
    period_end          date not null           -- last business day
);
