"""What the org says of itself: identity, zone, home currency, fiscal year, addresses of records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from connectors.errors import CrmError
from connectors.landing import Manifest
from connectors.salesforce.client import ORG, Client, Refused

_USER_INFO = """<?xml version="1.0" encoding="utf-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:urn="urn:partner.soap.sforce.com">
<soapenv:Header><urn:SessionHeader><urn:sessionId>{token}</urn:sessionId></urn:SessionHeader></soapenv:Header>
<soapenv:Body><urn:getUserInfo/></soapenv:Body></soapenv:Envelope>"""


def describe(client: Client, landing: Path, manifests: dict[str, Manifest]) -> dict[str, Any]:
    """The `org` of a Pull, from what was landed: only keys that are known.

    currency: the corporate currency of a multi-currency org (CurrencyType.IsCorporate). An org with one currency has no
    CurrencyType and its Organization record does not name it; the documented place is getUserInfo, which is asked then. user_id: whom
    we act as, where the sign-in has said it.
    """
    org: dict[str, Any] = {"record_url": f"{client.settings.instance_url}/{{id}}", "user_id": client.tokens.user_id}
    for record in records(landing, manifests.get("Organization")):
        org["org_id"] = record.get("Id")
        org["name"] = record.get("Name")
        org["timezone"] = record.get("TimeZoneSidKey")
        org["fiscal_year_start_month"] = record.get("FiscalYearStartMonth")
        org["is_sandbox"] = record.get("IsSandbox")
    corporate = [r.get("IsoCode") for r in records(landing, manifests.get("CurrencyType")) if r.get("IsCorporate") is True]
    org["currency"] = corporate[0] if corporate else single_currency(client)
    return {key: value for key, value in org.items() if value is not None}


def records(landing: Path, manifest: Manifest | None) -> list[dict[str, Any]]:
    """Records of an object of a few rows."""
    if manifest is None:
        return []
    files = (landing / manifest.object / f.name for f in manifest.files if f.format == "json_array")
    return [record for file in files for record in orjson.loads(file.read_bytes())]


def single_currency(client: Client) -> str | None:
    """orgDefaultCurrencyIsoCode of getUserInfo (SOAP API Developer Guide): set where the org has one currency only."""
    try:
        answer = client.soap(ORG, _USER_INFO)
    except (Refused, CrmError):
        return None
    found = re.search(rb"<orgDefaultCurrencyIsoCode>([A-Z]{3})</orgDefaultCurrencyIsoCode>", answer)
    return found[1].decode() if found else None
