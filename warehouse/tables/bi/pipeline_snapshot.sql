-- The open pipeline of a day, one row per source, pipeline, stage, owner and currency.
create table if not exists bi.pipeline_snapshot (
    snapshot_date       date not null,          -- business day
    source              varchar not null,       -- name of the source
    pipeline            varchar,                -- see core.opportunity
    stage               varchar not null,       -- canonical stage of the open deals
    owner_id            varchar,                -- the CRM's id
    owner_name          varchar,                -- name of the owner on that day
    currency            varchar,                -- ISO 4217; amount is in it
    deals               bigint not null,        -- open deals
    amount              decimal(38, 2),         -- sum in currency
    amount_home         decimal(38, 2),         -- sum in home currency
    weighted_home       decimal(38, 2),         -- sum of amount_home x probability
    flagged_deals       bigint,                 -- deals with an open alert finding
    flagged_amount_home decimal(38, 2),         -- their amount
    taken_at            timestamptz not null    -- --now of the run
);
