-- Fields that a source delivered once and does not show any more: removed in the CRM, or hidden from the user. Their last values stay.
create table if not exists core.field_lost (
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object
    name                varchar not null,       -- the CRM's field name
    label               varchar,                -- what people read
    type                varchar,                -- the CRM's type when it was last seen
    is_custom           boolean,                -- made by the org
    is_calculated       boolean,                -- a formula: changed without a stamp
    lost_at             timestamptz not null    -- --now of the first sync that missed it
);
