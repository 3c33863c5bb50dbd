-- Each field of each record of a plan, and what became of it.
create table if not exists ops.writeback_change (
    plan_hash           varchar not null,       -- see ops.writeback_plan
    opportunity_key     varchar not null,       -- see core.opportunity
    source              varchar not null,       -- name of the source
    opportunity_id      varchar not null,       -- the CRM's id
    field               varchar not null,       -- status, score, top_issue, issues, flagged_since
    old_value           varchar,                -- what the CRM holds
    new_value           varchar,                -- what it should hold; NULL clears it
    status              varchar not null,       -- planned, written, failed
    run_id              varchar,                -- run that applied it
    sent_at             timestamptz,            -- when
    error_code          varchar,                -- the CRM's code
    error               varchar                 -- the CRM's words
);
