-- The values that a field of the CRM may hold, and what people read for them, as the last sync saw it: a record holds the value. HubSpot's deal
-- properties; of a property that the portal shows no more, as it last was.
create table if not exists core.field_option (
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object
    name                varchar not null,       -- the CRM's field
    value               varchar not null,       -- as it is stored
    label               varchar,                -- what people read
    position            integer,                -- place among the field's options; NULL where the CRM does not order them
    is_hidden           boolean not null        -- not offered to people any more; records may still hold it
);
