-- Accounts (HubSpot: companies) of the deals.
create table if not exists core.account (
    account_key         varchar not null,       -- source || ':' || account_id
    source              varchar not null,       -- name of the source
    account_id          varchar not null,       -- the CRM's id
    name                varchar,                -- name
    industry            varchar,                -- as delivered
    employees           integer,                -- number of employees
    is_deleted          boolean not null,       -- deleted or merged away
    merged_into         varchar                 -- account_key of the survivor
);
