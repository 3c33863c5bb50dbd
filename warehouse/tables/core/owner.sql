-- People, queues and integration users who own deals, those who left too.
create table if not exists core.owner (
    owner_key           varchar not null,       -- source || ':' || owner_id
    source              varchar not null,       -- name of the source
    owner_id            varchar not null,       -- the CRM's id
    name                varchar,                -- full name
    email               varchar,                -- address, to match people over two CRMs
    is_active           boolean not null,       -- may log in / not archived
    is_seller           boolean not null,       -- a person who can sell: not a queue, not an integration user
    manager_id          varchar,                -- owner_id of the manager; NULL in HubSpot, which tells none
    team                varchar                 -- Salesforce role, HubSpot primary team
);
