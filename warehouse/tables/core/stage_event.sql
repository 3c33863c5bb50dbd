-- Every move of a deal between stages, from the CRM's history. A deal that is born closed has won or lost as its first event.
-- NULL in from_stage marks the first.
create table if not exists core.stage_event (
    opportunity_key     varchar not null,       -- see core.opportunity
    "at"                timestamptz not null,   -- instant of the move; a word of SQL, so write it "at"
    from_stage          varchar,                -- canonical; NULL for the first
    to_stage            varchar not null,       -- canonical
    from_crm_stage      varchar,                -- the CRM's value
    to_crm_stage        varchar not null,       -- the CRM's value
    kind                varchar not null,       -- enter, advance, skip, regress, won, lost, reopen; move: within one canonical stage or to or from on_hold/unmapped
    changed_by          varchar,                -- who moved it: the CRM's id of the owner; HubSpot users who own nothing: userId:123; NULL where it is not told
    changed_through     varchar                 -- by what: person, plumbline, integration, workflow, import, merge, crm (the CRM itself); NULL where it is not told
);
