-- Who on the buyer's side is attached to a deal, and as what.
create table if not exists core.contact_role (
    opportunity_key     varchar not null,       -- see core.opportunity
    contact_id          varchar not null,       -- the CRM's id of the contact
    role                varchar,                -- as delivered; NULL where the CRM keeps none
    is_primary          boolean                 -- the primary contact of the deal; NULL in HubSpot, which knows none
);
