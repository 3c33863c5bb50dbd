"""A look at an org that says little of itself, or stops answering: nothing is guessed, and what was seen until then is told."""

import pytest
from salesforce_stub import NOW, Stub, error, serving

from connectors.http import RetryPolicy
from connectors.salesforce.access import NIGHT, diagnose
from connectors.salesforce.client import Client
from connectors.salesforce.settings import SalesforceSettings

POLICY = RetryPolicy(sleep=lambda seconds: None)


@pytest.fixture
def stub():
    stub = Stub()
    stub.arm("FieldDefinition|jobs/query", lambda h: h.send(400, error("INVALID_TYPE", "not supported")) or True, times=2)
    return stub


def look(stub, *, writes=True, **more):
    with serving(stub) as url:
        keys = {"name": "sales", "crm": "salesforce", "instance_url": url, "client_id": "id", "client_secret": "right-secret", **more}
        settings = SalesforceSettings(**keys)
        found = diagnose(settings, writes=writes, client=Client(settings, POLICY))
    assert all("right-secret" not in f"{d.said} {d.fix}" for d in found)
    assert all(d.fix for d in found if d.state != "ok")
    return found


def one(found, area, containing=""):
    lines = [d for d in found if d.area == area and containing in d.said]
    assert len(lines) == 1, [(d.area, d.said) for d in found]
    return lines[0]


def test_what_the_org_does_not_tell_is_not_guessed(stub):
    found = look(stub)
    assert "as a user whom the org does not name to Acme" in one(found, "sign-in").said
    assert "cannot be told" in one(found, "sharing").said
    assert "off for Opportunity, or OpportunityFieldHistory is hidden" in one(found, "history").said
    missing = {d.detail["unreadable"][0] for d in found if d.area == "objects"}
    assert {"OpportunityContactRole", "Task", "User"} <= missing
    assert "Organization" not in missing  # described one by one, because the org lists no objects
    assert "CurrencyType" not in missing  # an org with one currency has none
    assert {"Opportunity.NextStep", "Opportunity.OwnerId"} <= {d.detail["unreadable"][0] for d in found if d.area == "fields"}
    assert one(found, "write-back").state == "problem"


def test_the_days_limit_is_asked_for_where_no_answer_tells_it(stub):
    stub.limit = None
    stub.answer("/limits/", 200, {"DailyApiRequests": {"Max": 15000, "Remaining": 300}})
    budget = one(look(stub), "API budget")
    assert (budget.state, budget.detail["left"]) == ("warning", 300)
    assert budget.detail["calls"] == stub.calls("v60.0/")
    stub.limit = None
    assert "does not tell its daily limit" in one(look(stub), "API budget").said


@pytest.mark.parametrize(("share", "limit", "said"), [(0.25, 100, "Raise quota_share"), (1, 100, "who else is calling")])
def test_a_night_that_would_not_fit(stub, share, limit, said):
    stub.limit = f"api-usage={limit - 30}/{limit}"
    budget = one(look(stub, quota_share=share), "API budget", f"a night takes {NIGHT} at least")
    assert budget.state == "problem"
    assert said in budget.fix


def test_an_org_that_runs_out_of_calls_while_it_is_looked_at(stub):
    stub.answer("Opportunity/describe", 403, error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."))
    found = look(stub)
    assert [d.area for d in found] == ["sign-in", "API budget"]
    assert "0 (0%) are left" in found[-1].said
    assert found[-1].state == "problem"


def test_an_org_that_goes_away_while_it_is_looked_at(stub):
    stub.answer("/deleted/", 503, error("SERVER_UNAVAILABLE"), times=9)
    found = look(stub)
    assert one(found, "deletions").state == "problem"
    assert [d.area for d in found][-1] == "API budget"
    assert not [d for d in found if d.area == "write-back"]


def test_a_young_log_of_deletions(stub):
    stub.answer(
        "/deleted/", 200, {"deletedRecords": [], "earliestDateAvailable": NOW.isoformat(), "latestDateCovered": NOW.isoformat()}
    )  # fmt: skip
    assert one(look(stub), "deletions", "reaches back 0 days only").state == "warning"


def test_the_api_is_closed_to_the_user(stub):
    stub.answer(r"v60\.0/ ?$|sobjects/$", 403, error("API_DISABLED_FOR_ORG"), times=3)
    found = look(stub)
    assert found[0].state == "problem"
    assert "API Enabled" in found[0].fix
