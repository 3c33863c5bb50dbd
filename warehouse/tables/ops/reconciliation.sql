-- Every difference between a CRM and the warehouse that `plumbline reconcile` found. A clean comparison leaves no row; that it was made is in ops.sync_run.
create table if not exists ops.reconciliation (
    run_id              varchar not null,       -- run that compared: see ops.sync_run
    source              varchar not null,       -- name of the source
    as_of               timestamptz not null,   -- --now of that run
    level               varchar not null,       -- deal: one deal differs; stage: the totals of a pipeline, stage and currency differ
    kind                varchar not null,       -- missing (CRM only), gone (live here only), revived (deleted here, live there), stale; stage: total
    opportunity_key     varchar,                -- see core.opportunity; NULL for totals
    opportunity_id      varchar,                -- the CRM's id; NULL for totals
    pipeline            varchar,                -- of the deal as the CRM has it, of a gone one as it was here; of the totals
    crm_stage           varchar,                -- likewise
    currency            varchar,                -- likewise
    field               varchar,                -- stale: what differs, a row each: stamp, stage, pipeline, pipeline_id, amount, currency, closed
    crm_value           varchar,                -- stale: the CRM's value, as text
    warehouse_value     varchar,                -- stale: the value here, as text
    crm_deals           bigint,                 -- live deals in the CRM: 0 or 1 for a deal
    warehouse_deals     bigint,                 -- live deals here: 0 or 1 for a deal
    crm_amount          decimal(38, 2),         -- their amounts in the CRM, in currency; NULL where no deal has one
    warehouse_amount    decimal(38, 2),         -- their amounts here
    pending             boolean,                -- the CRM changed it after the last sync had read it; NULL: cannot be told, as of totals
    mended              boolean not null        -- a comparison after mending found no difference any more
);
