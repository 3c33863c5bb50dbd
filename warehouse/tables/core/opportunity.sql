-- One row per opportunity, Salesforce opportunities and HubSpot deals alike. Deleted and merged ones stay, marked.
create table if not exists core.opportunity (
    opportunity_key         varchar not null,   -- source || ':' || opportunity_id; unique
    source                  varchar not null,   -- name of the source in plumbline.toml
    crm                     varchar not null,   -- salesforce or hubspot
    opportunity_id          varchar not null,   -- the CRM's id; Salesforce ids in 18 characters
    url                     varchar,            -- address of the record in the CRM's user interface
    name                    varchar,            -- name of the deal
    account_id              varchar,            -- id of the account (HubSpot: primary company) in the CRM
    account_name            varchar,            -- name of that account
    owner_id                varchar,            -- id of the owner in the CRM
    owner_name              varchar,            -- name of the owner, a former employee's too
    owner_active            boolean,            -- false: the owner left, is a queue or is not a working user; NULL: owner unknown
    pipeline                varchar,            -- Salesforce record type name, HubSpot pipeline label; 'default' when there is none
    pipeline_id             varchar,            -- the CRM's id of it
    type                    varchar,            -- Salesforce Type, HubSpot dealtype, as delivered
    crm_stage               varchar,            -- the CRM's own stage value: Salesforce StageName, HubSpot stage id
    crm_stage_label         varchar,            -- what people read for it
    stage                   varchar not null,   -- canonical stage (docs/stages.md); 'unmapped' is a value, never a guess
    stage_rank              integer,            -- 0 prequalified to 5 closed; NULL for on_hold and unmapped
    is_closed               boolean not null,   -- the CRM's own flag
    is_won                  boolean not null,   -- the CRM's own flag
    is_deleted              boolean not null,   -- in the recycle bin, archived, merged away or gone from the CRM
    deleted_at              timestamptz,        -- when the CRM or the first run that missed it says it went
    merged_into             varchar,            -- opportunity_key of the survivor of a merge
    amount                  decimal(18, 2),     -- in `currency`; NULL is not zero
    currency                varchar,            -- ISO 4217 code of the amount
    amount_home             decimal(18, 2),     -- amount in the home currency of the configuration; NULL when no rate is known
    fx_rate                 decimal(24, 15),    -- amount_home / amount: at the rate in force on close_date, or as HubSpot converted the deal where the portal's currency is the home currency
    probability             decimal(7, 6),      -- 0 to 1
    forecast_category       varchar,            -- omitted, pipeline, best_case, most_likely, commit, closed; HubSpot: as people set it, NULL where nobody did
    created_at              timestamptz,        -- when the record was created in the CRM
    close_date              date,               -- expected or actual day of closing, in the business time zone
    closed_at               timestamptz,        -- instant of the last change from open to closed, from history; NULL while open
    stage_entered_at        timestamptz,        -- when it entered its present CRM stage
    stage_default_probability decimal(7, 6),    -- probability that the CRM gives the stage by default, 0 to 1
    description             varchar,            -- the deal's description field
    next_step               varchar,            -- what happens next, as the seller wrote it
    next_step_changed_at    timestamptz,        -- last change of next_step, where the CRM keeps that history or a sync saw it
    last_activity_at        timestamptz,        -- last call, e-mail, meeting or finished task, never in the future, never our own
    next_activity_at        timestamptz,        -- next open task or meeting from now on
    recheck_at              timestamptz,        -- instant from which time alone changes last_activity_at or next_activity_at; NULL: never
    activity_capability     varchar,            -- full, tasks_only, none: how much of the activities this source lets us see
    contact_count           integer,            -- contacts attached to the deal; NULL when contacts could not be read
    has_line_items          boolean,            -- products are attached, so that the CRM takes the amount from them; NULL when that could not be read
    close_date_pushes       integer,            -- moves of the close date to a later day, by docs domain 0.5 (push_count); NULL without history
    lost_reason             varchar,            -- HubSpot closed_lost_reason, or the field mapped in the configuration
    evidence                json,               -- fields mapped in [sources.X.fields], by evidence name
    crm_modified_at         timestamptz,        -- Salesforce SystemModstamp, HubSpot hs_lastmodifieddate: a cursor, never freshness
    synced_at               timestamptz not null, -- instant of the run that last changed this row
    custom                  json,               -- every other field of the record, by the CRM's name
    row_hash                varchar not null    -- of the business columns: not of stamps, our own fields or computed ages
);
