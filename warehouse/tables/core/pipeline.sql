-- The pipelines that deals are in: HubSpot pipelines, Salesforce record types of opportunities. One row per pipeline of the CRM. Where deals have
-- none, or the CRM does not show it, the row is that of the deals themselves.
create table if not exists core.pipeline (
    source              varchar not null,       -- name of the source
    pipeline            varchar not null,       -- the name by which all other tables call it; it follows when the CRM renames it
    pipeline_id         varchar,                -- the CRM's id, which stays; NULL for 'default', the deals without one
    label               varchar,                -- what people read; NULL where the CRM does not show it
    sales_process       varchar,                -- Salesforce: name of the sales process that says which stages it has
    is_active           boolean,                -- whether new deals may go into it; NULL where the CRM does not show it
    former_names        varchar[]               -- what it was called before, for configurations that still say so; sorted
);
