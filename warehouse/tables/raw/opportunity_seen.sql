-- What syncs saw of deals: a row whenever a deal was otherwise than the sync before it had seen it. With the CRM's own history it is what
-- core.opportunity_version is made of; a CRM that keeps no history of a field, or forgets it, takes nothing from here.
create table if not exists raw.opportunity_seen (
    opportunity_key     varchar not null,       -- see core.opportunity
    "at"                timestamptz not null,   -- since when, at the latest: the record's stamp, or seen_at where no stamp moved
    seen_at             timestamptz not null,   -- --now of the sync that saw it
    crm_stage           varchar,                -- the CRM's own value
    stage_entered_at    timestamptz,            -- since when it is in that stage, as the record says
    pipeline            varchar,                -- name that the pipeline had then
    pipeline_id         varchar,                -- the CRM's id of it
    amount              decimal(18, 2),         -- in currency
    currency            varchar,                -- ISO 4217
    close_date          varchar,                -- as delivered: a day, or an instant whose day depends on the time zone
    owner_id            varchar,                -- the CRM's id
    probability         decimal(7, 6),          -- 0 to 1
    forecast_category   varchar,                -- see core.opportunity
    next_step           varchar,                -- as written
    is_deleted          boolean not null,       -- gone from the CRM
    deleted_at          timestamptz             -- since when, as the CRM or the first sync that missed it says
);
