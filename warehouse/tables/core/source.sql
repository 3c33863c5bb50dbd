-- The CRMs that deals come from, and what each says of its own organisation.
create table if not exists core.source (
    source                  varchar not null,       -- name of the source in plumbline.toml
    crm                     varchar not null,       -- salesforce or hubspot
    org_id                  varchar,                -- id of the organisation or portal
    timezone                varchar,                -- IANA name, as the CRM says
    currency                varchar,                -- ISO 4217: the CRM's own home currency
    fiscal_year_start_month integer,                -- 1 to 12, as the CRM says
    business_timezone       varchar,                -- zone in which days were counted at the last load: as configured, else as the CRM says
    home_currency           varchar,                -- ISO 4217: what amounts were converted to at the last load
    record_url              varchar,                -- address of a deal in the CRM's user interface, with {id} in place of its id
    derivation              json,                   -- the settings that core rows of this source were derived with: when they change, all are restated
    first_synced_at         timestamptz not null,   -- --now of the first load
    last_synced_at          timestamptz not null    -- --now of the last load
);
