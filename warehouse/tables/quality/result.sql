-- What each rule found in each run, per source.
create table if not exists quality.result (
    run_id              varchar not null,       -- run of the check
    as_of               timestamptz not null,   -- --now of that run
    source              varchar not null,       -- name of the source
    rule_id             varchar not null,       -- see quality.rule
    applicable          bigint,                 -- deals it applies to
    evaluable           bigint,                 -- of these, deals that can be judged (not UNKNOWN)
    failed              bigint,                 -- of these, deals that fail and are not waived
    waived              bigint,                 -- of these, deals that fail and are waived
    failed_amount_home  decimal(18, 2),         -- amount of the failed ones in home currency
    success             boolean,                -- no failure; NULL when the rule could not be run
    error               varchar,                -- why it could not be run
    unknown_reason      varchar                 -- why deals could not be judged
);
