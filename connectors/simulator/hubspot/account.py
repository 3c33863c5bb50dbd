"""Handlers: owners, account information, OAuth tokens."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from connectors.simulator.hubspot.call import Answer, Call
from connectors.simulator.hubspot.errors import ApiError
from connectors.simulator.hubspot.values import iso

MOST_OWNERS = 500


def owners(call: Call) -> Answer:
    call.need("crm.objects.owners.read")
    limit = call.whole("limit", 100, MOST_OWNERS)
    after = int(call.one("after") or 0)
    email = call.one("email")
    found = [
        owner
        for owner in call.portal.owners(archived=call.flag("archived"))
        if int(owner["id"]) >= after and (email is None or owner["email"] == email)
    ]
    body: dict[str, object] = {"results": found[:limit]}
    if len(found) > limit:
        onward = found[limit]["id"]
        body["paging"] = {"next": {"after": onward, "link": call.link(onward)}}
    return Answer(body)


def owner(call: Call) -> Answer:
    call.need("crm.objects.owners.read")
    wanted, key = call.params["owner_id"], "userIdIncludingInactive" if call.one("idProperty") == "userId" else "id"
    for one in call.portal.owners(archived=call.flag("archived")):
        if str(one[key]) == wanted:
            return Answer(one)
    raise ApiError(404, "resource not found", "OBJECT_NOT_FOUND")


def details(call: Call) -> Answer:
    return Answer(call.portal.details())


def exchange_rates(call: Call) -> Answer:
    """All rates with the instants from which on they hold. Documented: the fields and the scope; assumed: the oldest first."""
    call.need("settings.currencies.read")
    limit, after = call.whole("limit", 100, 100), int(call.one("after") or 0)
    found = [rate for rate in call.portal.exchange_rates() if int(rate["id"]) >= after]
    body: dict[str, object] = {"results": found[:limit]}
    if len(found) > limit:
        onward = str(found[limit]["id"])
        body["paging"] = {"next": {"after": onward, "link": call.link(onward)}}
    return Answer(body)


def usage(call: Call) -> Answer:
    """The day's calls of the app, as the usage API counts them."""
    limits = call.portal.limits
    local = call.now.astimezone(ZoneInfo(call.portal.settings["timezone"]))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    entry = {
        "name": "private-apps-api-calls-daily",
        "usageLimit": limits.daily,
        "currentUsage": limits.used_today,
        "collectedAt": iso(call.now),
        "fetchStatus": "SUCCESS",
        "resetsAt": iso(midnight),
    }
    return Answer({"results": [entry]})


def token(call: Call) -> Answer:
    return Answer(call.portal.access.issue(call.form))


def token_information(call: Call) -> Answer:
    known = call.portal.access.tokens.get(call.params["token"])
    if known is None:
        raise ApiError(404, "Invalid access token", "OBJECT_NOT_FOUND")
    return Answer(
        {
            "token": call.params["token"],
            "user": "integration@example.com",
            "hub_domain": "demo.hubspot.com",
            "scopes": sorted(call.portal.access.scopes),
            "hub_id": call.portal.portal_id,
            "app_id": int(call.portal.settings["app_id"]),
            "expires_in": max(0, int((known.expires_at - call.now).total_seconds())),
            "user_id": 9_560_000,
            "token_type": "access",
        }
    )
