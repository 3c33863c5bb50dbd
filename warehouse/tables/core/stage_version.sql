-- What the CRM said of each stage over time: one row per state, valid from (inclusive) to (exclusive). The first state of a stage reaches back to
-- the stage's creation, where the CRM tells it, else to the first sync.
create table if not exists core.stage_version (
    source              varchar not null,       -- name of the source
    pipeline            varchar not null,       -- see core.pipeline
    crm_stage           varchar not null,       -- the CRM's own value: Salesforce API name, HubSpot stage id
    label               varchar,                -- what people read
    valid_from          timestamptz not null,   -- inclusive
    valid_to            timestamptz,            -- exclusive; NULL is now
    position            integer,                -- order in the pipeline
    probability         decimal(7, 6),          -- the CRM's default, 0 to 1
    forecast_category   varchar,                -- the CRM's default, canonical spelling
    is_closed           boolean,                -- the CRM's flag
    is_won              boolean,                -- the CRM's flag
    is_active           boolean not null        -- false: retired, or not (any more) a stage of this pipeline
);
