-- What rules judge: one row per open deal and per deal closed in the last 90 days, made anew by each check.
-- A rule's SQL may read these columns and nothing else. Days are whole days in the business time zone up to business_date.
create or replace table plumbline_check.subject (
    opportunity_key         varchar not null,   -- source || ':' || opportunity_id
    source                  varchar not null,   -- name of the source
    crm                     varchar not null,   -- salesforce or hubspot
    opportunity_id          varchar not null,   -- the CRM's id
    business_date           date not null,      -- today, for every rule of the run
    name                    varchar,            -- name of the deal
    type                    varchar,            -- type of the deal, as delivered
    is_renewal              boolean not null,   -- type or pipeline says renewal: quiet and repeating by design
    pipeline                varchar,            -- pipeline or record type
    crm_stage               varchar,            -- the CRM's own stage value
    crm_stage_label         varchar,            -- what people read for it
    stage                   varchar not null,   -- canonical stage
    stage_rank              integer,            -- 0 prequalified to 5 closed; NULL for on_hold and unmapped
    is_open                 boolean not null,   -- not closed (deleted deals are not judged)
    is_closed               boolean not null,   -- the CRM's own flag
    is_won                  boolean not null,   -- the CRM's own flag
    created_day             date,               -- day the record was created
    age_days                integer,            -- days since then
    stage_entered_day       date,               -- day it entered its CRM stage
    days_since_stage_change integer,            -- days since then, or since creation if it never moved
    days_in_stage           integer,            -- days in its canonical stage: moves within it and time on hold do not count
    close_date              date,               -- expected or actual day of closing
    days_past_close_date    integer,            -- days since the close date; negative: still to come
    business_days_past_close_date integer,      -- the same in days from Monday to Friday
    closed_day              date,               -- day it was closed, from history, else the close date; NULL while open
    close_date_pushes       integer,            -- moves of the close date to a later day; NULL without history
    amount                  decimal(18, 2),     -- in `currency`; NULL is not zero
    currency                varchar,            -- ISO 4217
    amount_home             decimal(18, 2),     -- in the home currency; NULL when no rate is known
    probability             decimal(7, 6),      -- 0 to 1
    stage_default_probability decimal(7, 6),    -- what the CRM gives the stage by default, 0 to 1
    forecast_category       varchar,            -- omitted, pipeline, best_case, most_likely, commit, closed
    next_step               varchar,            -- as the seller wrote it; NULL when empty or blank
    next_step_synced        boolean not null,   -- false: the source does not let us read next steps
    activity_capability     varchar,            -- full, tasks_only, none: how much of the activities we may see
    last_activity_day       date,               -- last call, e-mail, meeting or finished task of a person
    days_quiet              integer,            -- days since the last activity, or since creation if there was none
    next_activity_day       date,               -- next open task or meeting, today or later; NULL when nothing is booked
    contact_count           integer,            -- contacts attached; NULL when contacts could not be read
    account_id              varchar,            -- id of the account in the CRM
    account_name            varchar,            -- its name
    account_known           boolean,            -- the account is there, not deleted; NULL when the deal names none
    account_described       boolean,            -- its industry or size is filled in; NULL when the account is not known
    owner_id                varchar,            -- id of the owner in the CRM
    owner_name              varchar,            -- name of the owner
    owner_active            boolean,            -- false: left, or not a working user; NULL: owner unknown
    owner_is_seller         boolean,            -- false: a queue or an integration user; NULL: owner unknown
    description             varchar,            -- the deal's description; NULL when empty or blank
    lost_reason             varchar,            -- why it was lost; NULL when empty or blank
    lost_reason_mapped      boolean not null,   -- false: the source has no field for the reason, or none is mapped
    need_evidence           boolean,            -- the field mapped as `need` is filled in; NULL: no field is mapped
    fit_evidence            boolean,            -- the field mapped as `fit` is filled in; NULL: no field is mapped
    description_in_use      boolean not null,   -- at least half of the source's won deals have a description
    account_facts_in_use    boolean not null,   -- at least a tenth of the source's won deals have an account with industry or size
    stage_in_pipeline       boolean,            -- the pipeline has this CRM stage; NULL: the source's stages are not known
    stage_active            boolean,            -- the stage is in use, not retired; NULL: not known
    mapped_stage            varchar,            -- canonical stage that the stage map gives
    mapped_closed           boolean,            -- closed by the stage's definition in the CRM
    mapped_won              boolean,            -- won by the stage's definition in the CRM
    dwell_limit             decimal(18, 2),     -- 90 % of won deals left this stage within so many days
    dwell_n                 bigint,             -- won deals behind it
    dwell_rung              varchar,            -- pipeline, source, default: whose deals they are
    cycle_limit             decimal(18, 2),     -- 95 % of won deals were won within so many days of creation
    cycle_n                 bigint,             -- won deals behind it
    cycle_rung              varchar,            -- pipeline, source, three_medians, default
    won_amount_median       decimal(18, 2),     -- median amount of won deals, home currency; NULL: too few
    won_amount_p75          decimal(18, 2),     -- upper quartile of it; NULL: too few
    is_snoozed              boolean not null,   -- snoozed in the CRM for at most 30 days ahead
    waived_rules            varchar[] not null, -- rules waived for this deal now; '*' for all
    unreadable              varchar[] not null  -- columns of this table that the source keeps from us: hidden fields, refused objects
);
