-- Every run of every command that changes the warehouse. The published file has those that were over when it was published.
create table if not exists ops.sync_run (
    run_id              varchar not null,       -- sortable: yyyymmddThhmmss-xxxx
    command             varchar not null,       -- sync, check, nightly, ...
    source              varchar,                -- NULL for a whole run; one more row per source synced
    as_of               timestamptz not null,   -- --now of the run
    started_at          timestamptz not null,   -- wall clock
    ended_at            timestamptz,            -- wall clock
    status              varchar not null,       -- running, done, failed, interrupted
    error               varchar,                -- one plain line
    detail              json                    -- what the command reported, where it reports more than its tables say
);
