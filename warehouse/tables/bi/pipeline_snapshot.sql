-- The open pipeline of a day, one row per source, pipeline, stage, owner and currency: as it stood when the day's run took it, or as it stood
-- when the day ended where that was rebuilt from history later. In stages and rates of the time of writing.
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
    flagged_deals       bigint,                 -- deals with an open alert finding; NULL for days before the first check
    flagged_amount_home decimal(38, 2),         -- their amount
    taken_at            timestamptz not null,   -- --now of the run, or the end of the day where it was rebuilt
    is_rebuilt          boolean,                -- from history, because no run took it on that day or somebody asked for it
    deals_without_amount bigint,                -- of them, those that have no amount: they count 0
    deals_without_rate  bigint                  -- of them, those whose currency has no rate: amount_home counts 0
);
