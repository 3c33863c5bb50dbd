-- API calls per run, and what the CRM said about the day's budget.
create table if not exists ops.api_usage (
    run_id              varchar not null,       -- see ops.sync_run
    source              varchar not null,       -- name of the source
    calls               bigint not null,        -- calls of this run
    calls_by_object     json,                   -- the same by object of the CRM: {"Opportunity": 12, …}
    daily_used          bigint,                 -- of the org's day, as the CRM counts
    daily_limit         bigint                  -- of the org's day
);
