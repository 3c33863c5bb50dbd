-- What Plumbline's own fields hold in the CRM right now, as last read or acknowledged.
create table if not exists core.crm_flag (
    opportunity_key     varchar not null,       -- see core.opportunity
    status              varchar,                -- clean, needs_attention, at_risk
    score               integer,                -- 0 to 100 in steps of 5
    top_issue           varchar,                -- plain text
    issues              varchar,                -- rule ids, sorted, joined by ;
    flagged_since       date,                   -- business day
    snooze_until        date                    -- set by a person; read, never written
);
