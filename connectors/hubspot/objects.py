"""What is read from a portal: one declaration per object, and where the API keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Deletions = Literal["own listing", "complete listing", "none"]


@dataclass(frozen=True)
class CrmObject:
    """How one kind of record is read.

    properties: asked for by name; for deals these are added to the portal's own schema, which leaves some of its standard names
    out. cursor: the property that moves with each change of a record. deletions: how a record that went is noticed. history:
    properties whose past values are read. scope: what a token needs. optional: the pull goes on without it.
    """

    name: str
    properties: tuple[str, ...]
    cursor: str
    deletions: Deletions
    history: tuple[str, ...] = ()
    associations: tuple[str, ...] = ()
    scope: str = ""
    optional: bool = False


# Archiving and restoring a deal moves no stamp, so the archived listing is read whole each time. Attaching or detaching contacts
# and companies moves none either: associations of open deals are read each time. Losers of a merge stand on the survivor.
DEALS = CrmObject(
    name="deals",
    properties=(
        "dealname", "amount", "amount_in_home_currency", "deal_currency_code", "closedate", "createdate", "hs_createdate", "dealstage",
        "pipeline", "dealtype", "description", "hubspot_owner_id", "hs_next_step", "hs_lastmodifieddate", "hs_object_id",
        "hs_deal_stage_probability", "hs_manual_forecast_category", "hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost",
        "hs_merged_object_ids", "hs_v2_date_entered_current_stage", "notes_last_updated", "notes_last_contacted",
        "notes_next_activity_date", "num_associated_contacts", "closed_lost_reason", "closed_won_reason",
    ),
    cursor="hs_lastmodifieddate",
    deletions="own listing",
    history=(
        "dealstage", "amount", "closedate", "hs_next_step", "hubspot_owner_id", "hs_manual_forecast_category", "pipeline",
        "deal_currency_code",
    ),
    associations=("contacts", "companies"),
    scope="crm.objects.deals.read",
)

COMPANIES = CrmObject(
    name="companies",
    properties=(
        "name", "domain", "industry", "numberofemployees", "country", "hs_merged_object_ids", "hs_lastmodifieddate", "hs_object_id",
    ),
    cursor="hs_lastmodifieddate",
    deletions="complete listing",
    scope="crm.objects.companies.read",
    optional=True,
)

# Limits of the API, from HubSpot's reference.
PAGE = 100  # records of a listing, and of a batch
PAGE_WITH_HISTORY = 50  # the same when propertiesWithHistory is asked
SEARCH_PAGE = 200
ASSOCIATION_BATCH = 1000
URL_ROOM = 7000  # bytes; servers and proxies refuse URLs from 8 KB on
RECYCLE_BIN_DAYS = 90  # archived records can be restored so long, then they are gone

PRIMARY_COMPANY = 5  # association type id of deal to primary company


@dataclass(frozen=True)
class Paths:
    """The API's addresses by version: numbered ("v3", with associations at v4) or dated ("2026-09").

    Numbered paths are supported until September 2027, dated ones for 18 months each; the bodies are the same.
    """

    version: str

    @property
    def _numbered(self) -> bool:
        return self.version.startswith("v")

    def objects(self, kind: str) -> str:
        return f"/crm/{self.version}/objects/{kind}" if self._numbered else f"/crm/objects/{self.version}/{kind}"

    def properties(self, kind: str) -> str:
        return f"/crm/{self.version}/properties/{kind}" if self._numbered else f"/crm/properties/{self.version}/{kind}"

    def pipelines(self, kind: str) -> str:
        return f"/crm/{self.version}/pipelines/{kind}" if self._numbered else f"/crm/pipelines/{self.version}/{kind}"

    def associations(self, kind: str, to: str) -> str:
        base = "/crm/v4/associations" if self._numbered else f"/crm/associations/{self.version}"
        return f"{base}/{kind}/{to}/batch/read"

    @property
    def owners(self) -> tuple[str, str]:
        """With a slash at its end as HubSpot's clients ask, and without as its reference writes; HubSpot takes both."""
        path = f"/crm/{self.version}/owners" if self._numbered else f"/crm/owners/{self.version}"
        return (f"{path}/", path) if self._numbered else (path, f"{path}/")

    @property
    def account(self) -> str:
        return f"/account-info/{self.version}/details"

    @property
    def exchange_rates(self) -> str:
        return f"/settings/{self.version}/currencies/exchange-rates" if self._numbered else f"/settings/currencies/{self.version}/exchange-rates"

    @property
    def token(self) -> str:
        return "/oauth/v1/token"
