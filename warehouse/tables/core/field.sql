-- The fields that each source delivers: the CRM's schema as the last sync saw it.
create table if not exists core.field (
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object
    name                varchar not null,       -- the CRM's field name
    label               varchar,                -- what people read
    type                varchar,                -- the CRM's type
    is_custom           boolean,                -- made by the org
    is_calculated       boolean,                -- a formula: changes without a stamp
    is_partial          boolean,                -- values are here only of records changed since; the next sync reads the others
    first_seen_at       timestamptz not null,   -- run that first saw it
    last_seen_at        timestamptz not null    -- run that last saw it
);
