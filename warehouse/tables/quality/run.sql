-- One row per check: what Great Expectations said, kept whole.
create table if not exists quality.run (
    run_id              varchar not null,       -- run of the check
    as_of               timestamptz not null,   -- --now
    business_date       date not null,          -- the day that rules call today
    rule_set_version    varchar not null,       -- see quality.rule
    rules               integer not null,       -- rules run
    errored             integer not null,       -- rules that could not be run
    success             boolean not null,       -- Great Expectations' own verdict
    opened              bigint not null,        -- findings opened
    kept                bigint not null,        -- findings that stayed
    resolved            bigint not null,        -- findings resolved
    validation          json                    -- the Validation Result
);
