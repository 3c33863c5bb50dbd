"""What every new org has before its people start: organisation, profiles, users, stages, record type, currencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.simulator.salesforce.objects import FORECAST_CATEGORY_NAMES

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

# MasterLabel, probability, forecast category, closed, won: the stages of an org out of the box.
STANDARD_STAGES = [
    ("Prospecting", 10, "Pipeline", False, False),
    ("Qualification", 10, "Pipeline", False, False),
    ("Needs Analysis", 20, "Pipeline", False, False),
    ("Value Proposition", 50, "Pipeline", False, False),
    ("Id. Decision Makers", 60, "Pipeline", False, False),
    ("Perception Analysis", 70, "Pipeline", False, False),
    ("Proposal/Price Quote", 75, "Pipeline", False, False),
    ("Negotiation/Review", 90, "Pipeline", False, False),
    ("Closed Won", 100, "Closed", True, True),
    ("Closed Lost", 0, "Omitted", True, False),
]
ADMIN, INTEGRATION, AUTOMATED = "admin@plumbline.example", "integration@plumbline.example", "automatedprocess@plumbline.example"


def fill(org: SalesforceOrg) -> None:
    """Fill a new org with its set-up."""
    profiles = org.insert(
        "Profile",
        [{"Name": "System Administrator", "UserType": "Standard"}, {"Name": "Standard User", "UserType": "Standard"},
         {"Name": "Minimum Access - API Only Integrations", "UserType": "CloudIntegrationUser"}],
    )  # fmt: skip
    common = {"TimeZoneSidKey": "Europe/Berlin", "LanguageLocaleKey": "en_US", "CurrencyIsoCode": "EUR", "DefaultCurrencyIsoCode": "EUR"}
    users = org.insert(
        "User",
        [
            common | {"Username": ADMIN, "FirstName": "Anke", "LastName": "Admin", "Email": ADMIN, "Alias": "admin", "IsActive": True,
                      "ProfileId": profiles[0], "UserType": "Standard", "Title": "CRM administrator"},
            common | {"Username": INTEGRATION, "FirstName": "Plumbline", "LastName": "Integration", "Email": INTEGRATION,
                      "Alias": "plumb", "IsActive": True, "ProfileId": profiles[2], "UserType": "Standard"},
            common | {"Username": AUTOMATED, "LastName": "Automated Process", "Email": AUTOMATED, "Alias": "autoproc",
                      "IsActive": True, "ProfileId": profiles[1], "UserType": "AutomatedProcess"},
        ],
    )  # fmt: skip
    admin = users[0]
    for name in ("Profile", "User"):
        org.con.execute(f'UPDATE "{name}" SET "CreatedById" = ?, "LastModifiedById" = ?', [admin, admin])
    audit = {"CreatedById": admin, "LastModifiedById": admin}
    org.insert(
        "Organization",
        [audit | {"Name": "Plumbline Demo", "Country": "DE", "DefaultLocaleSidKey": "de_DE_EURO", "TimeZoneSidKey": "Europe/Berlin",
                  "LanguageLocaleKey": "en_US", "FiscalYearStartMonth": 1, "UsesStartDateAsFiscalYearName": False,
                  "InstanceName": "DEU42", "IsSandbox": False, "OrganizationType": "Enterprise Edition",
                  "DefaultAccountAccess": "None", "DefaultOpportunityAccess": "None"}],
    )  # fmt: skip
    org.insert(
        "CurrencyType",
        [audit | {"IsoCode": "EUR", "ConversionRate": 1, "DecimalPlaces": 2, "IsActive": True, "IsCorporate": True},
         audit | {"IsoCode": "USD", "ConversionRate": 1.08, "DecimalPlaces": 2, "IsActive": True, "IsCorporate": False}],
    )  # fmt: skip
    process = {"Name": "Standard Sales Process", "TableEnumOrId": "Opportunity", "IsActive": True}
    org.insert("BusinessProcess", [audit | process])
    org.add_record_type("New Business")
    stages = [
        audit | {"MasterLabel": label, "ApiName": label, "IsActive": True, "SortOrder": place, "IsClosed": is_closed, "IsWon": is_won,
                 "DefaultProbability": probability, "ForecastCategory": category,
                 "ForecastCategoryName": FORECAST_CATEGORY_NAMES[category]}
        for place, (label, probability, category, is_closed, is_won) in enumerate(STANDARD_STAGES, 1)
    ]  # fmt: skip
    org.insert("OpportunityStage", stages)
