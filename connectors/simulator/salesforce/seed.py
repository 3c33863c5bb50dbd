"""What every new org has before its people start: organisation, profiles, users, stages, record type, currencies."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from connectors.simulator.salesforce.ids import FIRST_NUMBER, make_id

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


def insert(org: SalesforceOrg, sobject: str, rows: list[dict[str, Any]]) -> list[str]:
    """Insert rows as they are, with ids and stamps where they have none; no side effects. Gives the ids."""
    o = org.objects[sobject]
    stamp, made = org.now().replace(tzinfo=None), []
    for row in rows:
        number = org._numbers.get(sobject, FIRST_NUMBER)
        org._numbers[sobject] = number + 1
        whole: dict[str, Any] = {"Id": make_id(o.prefix, number)}
        whole |= {name: stamp for name in ("CreatedDate", "LastModifiedDate", "SystemModstamp") if name in o.fields}
        if o.soft_deletes:
            whole["IsDeleted"] = False
        whole |= row
        columns = ", ".join(f'"{name}"' for name in whole)
        marks = ", ".join("?" * len(whole))
        values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in whole.values()]
        org.con.execute(f'INSERT INTO "{sobject}" ({columns}) VALUES ({marks})', values)
        made.append(whole["Id"])
    return made


def fill(org: SalesforceOrg) -> None:
    """Fill a new org with its set-up."""
    profiles = insert(
        org, "Profile",
        [{"Name": "System Administrator", "UserType": "Standard"}, {"Name": "Standard User", "UserType": "Standard"},
         {"Name": "Minimum Access - API Only Integrations", "UserType": "CloudIntegrationUser"}],
    )  # fmt: skip
    common = {"TimeZoneSidKey": "Europe/Berlin", "LanguageLocaleKey": "en_US", "CurrencyIsoCode": "EUR", "DefaultCurrencyIsoCode": "EUR"}
    users = insert(
        org, "User",
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
    insert(
        org, "Organization",
        [audit | {"Name": "Plumbline Demo", "Country": "DE", "DefaultLocaleSidKey": "de_DE_EURO", "TimeZoneSidKey": "Europe/Berlin",
                  "LanguageLocaleKey": "en_US", "FiscalYearStartMonth": 1, "UsesStartDateAsFiscalYearName": False,
                  "InstanceName": "DEU42", "IsSandbox": False, "OrganizationType": "Enterprise Edition"}],
    )  # fmt: skip
    insert(
        org, "CurrencyType",
        [audit | {"IsoCode": "EUR", "ConversionRate": 1, "DecimalPlaces": 2, "IsActive": True, "IsCorporate": True},
         audit | {"IsoCode": "USD", "ConversionRate": 1.08, "DecimalPlaces": 2, "IsActive": True, "IsCorporate": False}],
    )  # fmt: skip
    insert(org, "RecordType", [audit | record_type("New Business")])
    for label, probability, category, is_closed, is_won in STANDARD_STAGES:
        org._numbers.setdefault("OpportunityStage", FIRST_NUMBER)
        org.add_stage(label, probability=probability, forecast_category=category, is_closed=is_closed, is_won=is_won)


def record_type(name: str) -> dict[str, Any]:
    return {"Name": name, "DeveloperName": name.replace(" ", "_"), "SobjectType": "Opportunity", "IsActive": True}
