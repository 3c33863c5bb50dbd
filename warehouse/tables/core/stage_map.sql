-- Which canonical stage each stage of each CRM stands for, and who said so.
create table if not exists core.stage_map (
    source              varchar not null,       -- name of the source
    pipeline            varchar not null,       -- see core.opportunity
    crm_stage           varchar not null,       -- the CRM's own value
    label               varchar,                -- what people read
    position            integer,                -- order in the pipeline
    probability         decimal(7, 6),          -- the CRM's default, 0 to 1
    forecast_category   varchar,                -- the CRM's default, canonical spelling; NULL in HubSpot, whose stages have none
    is_closed           boolean,                -- the CRM's flag
    is_won              boolean,                -- the CRM's flag
    is_active           boolean,                -- false: retired, or seen on deals only
    stage               varchar not null,       -- canonical stage in force
    stage_rank          integer,                -- its rank
    origin              varchar not null,       -- flags, default, config, confirmed, suggested, unmapped
    confidence          decimal(3, 2),          -- of the suggestion, 0 to 1
    suggestion          varchar,                -- canonical stage suggested
    reason              varchar,                -- why it was suggested, in words
    updated_at          timestamptz not null    -- run that last changed this row
);
