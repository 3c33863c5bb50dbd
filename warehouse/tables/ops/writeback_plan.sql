-- Plans of what to write to the CRMs; a plan is applied exactly as stored, by its hash.
create table if not exists ops.writeback_plan (
    plan_hash           varchar not null,       -- of every change in it
    run_id              varchar not null,       -- run that made it
    created_at          timestamptz not null,   -- --now
    status              varchar not null,       -- planned, held, applied, superseded
    records             bigint not null,        -- records to change
    changes             bigint not null,        -- fields to change
    open_deals          bigint not null,        -- open deals, the measure of max_share
    note                varchar                 -- why it is held, or what was left out
);
