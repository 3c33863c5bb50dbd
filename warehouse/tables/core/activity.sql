-- Tasks and events of deals (Salesforce). HubSpot delivers only the dates, which stand on the deal.
create table if not exists core.activity (
    activity_key        varchar not null,       -- source || ':' || id
    opportunity_key     varchar not null,       -- see core.opportunity
    kind                varchar not null,       -- task or event
    "at"                timestamptz,            -- completed, or ended, or due
    starts_at           timestamptz,            -- when an event starts; NULL for tasks
    due_date            date,                   -- business day a task is due or an event starts
    is_done             boolean not null,       -- a closed task, or an event that ended
    subject             varchar,                -- as delivered
    owner_id            varchar,                -- the CRM's id
    is_ours             boolean not null        -- written by Plumbline's own user: never counts as a person's activity
);
