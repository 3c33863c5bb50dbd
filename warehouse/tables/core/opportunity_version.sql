-- What a deal was over time: one row per state, no gaps, valid from (inclusive) to (exclusive).
create table if not exists core.opportunity_version (
    opportunity_key     varchar not null,       -- see core.opportunity
    valid_from          timestamptz not null,   -- inclusive
    valid_to            timestamptz,            -- exclusive; NULL is now
    origin              varchar not null,       -- crm_history: told by the CRM's history; observed: seen by a sync
    stage               varchar,                -- canonical stage
    crm_stage           varchar,                -- the CRM's own value
    pipeline            varchar,                -- see core.opportunity
    amount              decimal(18, 2),         -- in currency
    currency            varchar,                -- ISO 4217
    amount_home         decimal(18, 2),         -- in the home currency
    close_date          date,                   -- business day
    owner_id            varchar,                -- the CRM's id
    probability         decimal(7, 6),          -- 0 to 1
    forecast_category   varchar,                -- see core.opportunity
    next_step           varchar,                -- as written
    is_closed           boolean,                -- the CRM's flag
    is_won              boolean,                -- the CRM's flag
    is_deleted          boolean,                -- gone from the CRM
    changed_by          varchar,                -- who made the change that began it, as in core.stage_event: of several at that instant, that of the stage, else the last
    changed_through     varchar                 -- by what: see core.stage_event
);
