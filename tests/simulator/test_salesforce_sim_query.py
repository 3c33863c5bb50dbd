"""SOQL over REST: what a query means, how its answer looks, and how a wrong one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from salesforce_sim_help import NOW, World, plain, world
from simple_salesforce.exceptions import SalesforceMalformedRequest


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    """Two accounts, five deals, contacts, activities, one deleted deal."""
    with world() as w:
        org = w.org
        acme = org.create("Account", {"Name": "Acme GmbH", "Industry": "Banking", "BillingCity": "Ulm"})
        zulu = org.create("Account", {"Name": "Zulu & Söhne \"AG\"", "ParentId": acme})
        deals = [
            {"Name": "Alpha", "AccountId": acme, "StageName": "Prospecting", "CloseDate": date(2026, 11, 23), "Amount": 1000},
            {"Name": "beta", "AccountId": acme, "StageName": "Closed Won", "CloseDate": date(2026, 11, 1), "Amount": 12500000.5},
            {"Name": "Gamma 100%", "AccountId": zulu, "StageName": "Qualification", "CloseDate": date(2027, 1, 15)},
            {"Name": "delta", "StageName": "Negotiation/Review", "CloseDate": date(2026, 12, 24), "Amount": 0, "NextStep": "Call Ülrich"},
            {"Name": "Epsilon", "AccountId": zulu, "StageName": "Closed Lost", "CloseDate": date(2026, 10, 5), "Amount": 70,
             "CurrencyIsoCode": "USD"},
        ]  # fmt: skip
        ids = [outcome.id or "" for outcome in org.create_many("Opportunity", deals)]
        people = [
            outcome.id for outcome in org.create_many("Contact", [{"LastName": n, "AccountId": acme} for n in ("Ott", "Noll", "Ast")])
        ]
        for person, role in zip(people, ("Decision Maker", "Evaluator", None), strict=True):
            org.create("OpportunityContactRole", {"OpportunityId": ids[0], "ContactId": person, "Role": role})
        call = {"Subject": "Call", "WhatId": ids[0], "WhoId": people[0], "ActivityDate": date(2026, 11, 20), "Status": "Completed"}
        org.create("Task", call)
        org.create("Task", {"Subject": "Post", "WhatId": acme})
        visit = datetime(2026, 12, 1, 9, tzinfo=UTC)
        org.create("Event", {"Subject": "Visit", "WhatId": ids[2], "StartDateTime": visit, "DurationInMinutes": 30})
        org.delete("Opportunity", ids[4])
        yield w


def names(w: World, where: str, **kwargs: bool) -> list[str]:
    return w.column(f"SELECT Name FROM Opportunity WHERE {where} ORDER BY Id", **kwargs)


def test_records_carry_attributes_parents_and_types(w: World) -> None:
    answer = w.sf.query(
        "SELECT Id, Name, Amount, IsClosed, CloseDate, CreatedDate, Account.Name, Account.Parent.Name, Owner.IsActive "
        "FROM Opportunity WHERE Name = 'beta'"
    )
    record = answer["records"][0]
    assert list(record) == ["attributes", "Id", "Name", "Amount", "IsClosed", "CloseDate", "CreatedDate", "Account", "Owner"]
    assert record["attributes"] == {"type": "Opportunity", "url": f"/services/data/v62.0/sobjects/Opportunity/{record['Id']}"}
    assert plain(record) == {
        "Id": record["Id"], "Name": "beta", "Amount": 12500000.5, "IsClosed": True, "CloseDate": "2026-11-01",
        "CreatedDate": "2026-11-23T09:00:00.000+0000", "Account": {"Name": "Acme GmbH", "Parent": None}, "Owner": {"IsActive": True},
    }  # fmt: skip
    assert (answer["totalSize"], answer["done"]) == (1, True)


def test_big_numbers_are_written_as_java_writes_doubles(w: World) -> None:
    text = w.raw.get(f"{w.data}/query/", params={"q": "SELECT Amount FROM Opportunity ORDER BY Amount DESC NULLS LAST"}).text
    assert '"Amount":1.25000005E7}' in text and '"Amount":1000.0}' in text and '"Amount":0.0}' in text and '"Amount":null}' in text


def test_a_missing_parent_is_null_and_quotes_survive(w: World) -> None:
    found = w.records("SELECT Account.Name FROM Opportunity WHERE Name IN ('Gamma 100%', 'DELTA') ORDER BY Name")
    assert found == [{"Account": None}, {"Account": {"Name": 'Zulu & Söhne "AG"'}}]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("Name = 'ALPHA'", ["Alpha"]),  # text ignores case
        ("NextStep != 'x'", ["Alpha", "beta", "Gamma 100%", "delta"]),  # an empty field is different from any value
        ("NOT NextStep = 'Call Ülrich'", ["Alpha", "beta", "Gamma 100%"]),
        ("(NOT Amount > 500)", ["Gamma 100%", "delta"]),  # no amount is not more than 500
        ("Amount NOT IN (0, 1000)", ["beta", "Gamma 100%"]),
        ("Amount = null", ["Gamma 100%"]),
        ("Amount != null AND IsClosed = false", ["Alpha", "delta"]),
        ("Amount IN (null, 0)", ["Gamma 100%", "delta"]),
        ("Name LIKE '%a' AND (StageName LIKE '_rospect%' OR IsWon = TRUE)", ["Alpha", "beta"]),
        (r"Name LIKE '%0\%'", ["Gamma 100%"]),
        ("Account.Name LIKE 'zulu%'", ["Gamma 100%"]),
        ("Account.Name = null", ["delta"]),
        ("CloseDate = TODAY", ["Alpha"]),
        ("CloseDate = THIS_MONTH", ["Alpha", "beta"]),
        ("CloseDate < TODAY", ["beta"]),
        ("CloseDate = NEXT_N_DAYS:31", ["delta"]),
        ("CloseDate > NEXT_MONTH", ["Gamma 100%"]),
        ("CloseDate = LAST_N_DAYS:30", ["Alpha", "beta"]),
        ("CloseDate >= 2026-12-24", ["Gamma 100%", "delta"]),
        ("CreatedDate = TODAY AND CreatedDate < 2026-11-23T09:00:01Z", ["Alpha", "beta", "Gamma 100%", "delta"]),
        ("SystemModstamp >= 2026-11-23T10:00:00.500+01:00 AND Amount > 1e6", ["beta"]),  # milliseconds do not count
        ("Id IN (SELECT OpportunityId FROM OpportunityContactRole WHERE Role = 'Evaluator')", ["Alpha"]),
        ("Id NOT IN (SELECT OpportunityId FROM OpportunityContactRole)", ["beta", "Gamma 100%", "delta"]),
        ("HasOpenActivity = true", None),
    ],
)
def test_where(w: World, where: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(SalesforceMalformedRequest, match="can not be filtered"):
            names(w, where)
    else:
        assert names(w, where) == expected


def test_ids_in_fifteen_characters_find_the_record(w: World) -> None:
    record = w.column("SELECT Id FROM Opportunity WHERE Name = 'Alpha'")[0]
    assert names(w, f"Id = '{record[:15]}'") == ["Alpha"]


def test_order_limit_and_offset(w: World) -> None:
    assert w.column("SELECT Name FROM Opportunity ORDER BY Amount") == ["Gamma 100%", "delta", "Alpha", "beta"]
    assert w.column("SELECT Name FROM Opportunity ORDER BY Amount DESC NULLS LAST LIMIT 2 OFFSET 1") == ["Alpha", "delta"]
    assert w.column("SELECT Name FROM Opportunity ORDER BY Name") == ["Alpha", "beta", "delta", "Gamma 100%"]


def test_child_subqueries(w: World) -> None:
    soql = (
        "SELECT Name, (SELECT Role, Contact.Name FROM OpportunityContactRoles WHERE Role != null ORDER BY Contact.Name), "
        "(SELECT Subject FROM Tasks) FROM Opportunity WHERE Name IN ('Alpha', 'beta') ORDER BY Name"
    )
    alpha, beta = w.sf.query(soql)["records"]
    roles = alpha["OpportunityContactRoles"]
    assert (roles["totalSize"], roles["done"]) == (2, True)
    assert plain(roles["records"]) == [
        {"Role": "Evaluator", "Contact": {"Name": "Noll"}}, {"Role": "Decision Maker", "Contact": {"Name": "Ott"}},
    ]  # fmt: skip
    assert plain(alpha["Tasks"]["records"]) == [{"Subject": "Call"}]
    assert beta["OpportunityContactRoles"] is None
    first = w.sf.query("SELECT (SELECT Contact.Name FROM OpportunityContactRoles ORDER BY Contact.Name LIMIT 1) FROM Opportunity LIMIT 1")
    assert plain(first["records"][0]["OpportunityContactRoles"]["records"]) == [{"Contact": {"Name": "Ast"}}]


def test_polymorphic_parents(w: World) -> None:
    tasks = w.sf.query("SELECT Subject, What.Type, What.Name, Who.Name FROM Task WHERE What.Type = 'Opportunity'")["records"]
    assert plain(tasks) == [{"Subject": "Call", "What": {"Type": "Opportunity", "Name": "Alpha"}, "Who": {"Name": "Ott"}}]
    assert tasks[0]["What"]["attributes"]["type"] == "Name" and "/sobjects/Opportunity/006" in tasks[0]["What"]["attributes"]["url"]
    assert w.column("SELECT COUNT(Id) FROM Task WHERE What.Type IN ('Opportunity', 'Account')") == [2]


def test_typeof_shows_each_kind_of_parent_by_its_own_fields(w: World) -> None:
    when = "WHEN Opportunity THEN Name, Amount WHEN Account THEN BillingCity"
    tasks = w.sf.query(f"SELECT Subject, TYPEOF What {when} END FROM Task ORDER BY Subject")["records"]
    assert plain(tasks) == [
        {"Subject": "Call", "What": {"Name": "Alpha", "Amount": 1000.0}}, {"Subject": "Post", "What": {"BillingCity": "Ulm"}},
    ]  # fmt: skip
    assert [t["What"]["attributes"]["type"] for t in tasks] == ["Opportunity", "Account"]
    other = w.records("SELECT TYPEOF What WHEN Opportunity THEN Id ELSE Name END, TYPEOF Who WHEN Contact THEN LastName END FROM Task "
                      "WHERE Subject = 'Post'")  # fmt: skip
    assert other == [{"What": {"Name": "Acme GmbH"}, "Who": None}]
    assert w.records("SELECT TYPEOF What WHEN Opportunity THEN Id END FROM Task WHERE Subject = 'Post'") == [{"What": None}]


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT TYPEOF Owner WHEN User THEN Id END FROM Task", "INVALID_FIELD", "Owner is not a polymorphic relationship"),
        ("SELECT TYPEOF What WHEN Contact THEN Id END FROM Task", "INVALID_TYPE", "Contact is not a type of What"),
        ("SELECT TYPEOF What WHEN Account THEN Nope__c END FROM Task", "INVALID_FIELD", "No such column 'Nope__c' on entity 'Account'"),
        ("SELECT What.Name, TYPEOF What WHEN Account THEN Id END FROM Task", "MALFORMED_QUERY", "selected both by TYPEOF"),
        ("SELECT TYPEOF What ELSE Id END FROM Task", "MALFORMED_QUERY", "unexpected token: 'ELSE'"),
        ("SELECT (SELECT TYPEOF What WHEN Account THEN Id END FROM Tasks) FROM Opportunity", "MALFORMED_QUERY", "nested queries"),
    ],
)
def test_typeof_is_refused_where_the_platform_refuses_it(w: World, soql: str, code: str, message: str) -> None:
    error = w.raw.get(f"{w.data}/query/", params={"q": soql}).json()[0]
    assert error["errorCode"] == code and message in error["message"]


def test_counts_and_groups(w: World) -> None:
    assert w.sf.query("SELECT COUNT() FROM Opportunity WHERE IsClosed = false") == {"totalSize": 3, "done": True, "records": []}
    grouped = w.sf.query(
        "SELECT IsClosed, COUNT(Id), SUM(Amount) total, MAX(CloseDate) FROM Opportunity GROUP BY IsClosed HAVING COUNT(Id) > 1"
    )["records"]
    assert grouped[0]["attributes"] == {"type": "AggregateResult"}
    assert plain(grouped) == [{"IsClosed": False, "expr0": 3, "total": 1000.0, "expr1": "2027-01-15"}]
    month = "CALENDAR_MONTH(CloseDate)"
    by_month = f"SELECT {month}, COUNT(Id) FROM Opportunity GROUP BY {month} ORDER BY {month}"
    assert [list(r.values()) for r in w.records(by_month)] == [[1, 1], [11, 2], [12, 1]]
    assert w.column("SELECT COUNT_DISTINCT(AccountId) FROM Opportunity") == [2]


def test_sums_of_several_currencies_are_in_the_orgs_own(w: World) -> None:
    total = w.sf.query("SELECT SUM(Amount) FROM Opportunity WHERE Name = 'Epsilon'", include_deleted=True)["records"][0]["expr0"]
    assert total == pytest.approx(70 / 1.08, abs=0.01)
    assert w.column("SELECT Amount FROM Opportunity WHERE Name = 'Epsilon'", include_deleted=True) == [70.0]


def test_deleted_records_are_for_query_all(w: World) -> None:
    assert names(w, "Name = 'Epsilon'") == []
    found = w.records("SELECT Name, IsDeleted FROM Opportunity WHERE IsDeleted = true", include_deleted=True)
    assert found == [{"Name": "Epsilon", "IsDeleted": True}]
    assert w.column("SELECT Name FROM Opportunity WHERE IsDeleted = true ALL ROWS") == ["Epsilon"]


def test_fields_all_and_compound_addresses(w: World) -> None:
    record = w.sf.query("SELECT FIELDS(ALL) FROM Account WHERE Name = 'Acme GmbH' LIMIT 200")["records"][0]
    assert record["BillingAddress"]["city"] == "Ulm" and record["BillingCity"] == "Ulm" and record["ShippingAddress"] is None
    with pytest.raises(SalesforceMalformedRequest, match="must have a LIMIT of at most 200"):
        w.sf.query("SELECT FIELDS(ALL) FROM Account")


def test_paging_gives_each_record_once(w: World) -> None:
    with world() as other:
        other.org.create_many(
            "Opportunity", [{"Name": f"Deal {n}", "StageName": "Prospecting", "CloseDate": "2026-12-01"} for n in range(450)]
        )  # fmt: skip
        headers = {"Sforce-Query-Options": "batchSize=200"}
        page = other.sf.query("SELECT Name FROM Opportunity ORDER BY Name", headers=headers)
        seen = [r["Name"] for r in page["records"]]
        assert (page["totalSize"], page["done"], len(seen)) == (450, False, 200)
        # What changes between the pages does not shift them.
        other.org.delete("Opportunity", page["records"][0]["attributes"]["url"].rsplit("/", 1)[1])
        while not page["done"]:
            page = other.sf.query_more(page["nextRecordsUrl"], identifier_is_url=True)
            seen += [r["Name"] for r in page["records"]]
        assert sorted(seen) == sorted(f"Deal {n}" for n in range(450))
        with pytest.raises(SalesforceMalformedRequest, match="INVALID_QUERY_LOCATOR"):
            other.sf.query_more("01g5g0000099999AAA-200")


NO_COLUMN = (
    "No such column 'Nope__c' on entity 'Opportunity'. If you are attempting to use a custom field, be sure to append the '__c' after "
    "the custom field name. Please reference your WSDL or the describe call for the appropriate names."
)


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT Id, Nope__c FROM Opportunity", "INVALID_FIELD",
         f"\nSELECT Id, Nope__c FROM Opportunity\n           ^\nERROR at Row:1:Column:12\n{NO_COLUMN}"),
        ("SELECT Id FROM Nope", "INVALID_TYPE", "sObject type 'Nope' is not supported."),
        ("SELECT Id FROM Opportunity WHERE Nope.Name = 'x'", "INVALID_FIELD", "Didn't understand relationship 'Nope' in field path."),
        ("SELECT Id, (SELECT Id FROM Nopes) FROM Opportunity", "INVALID_TYPE", "Didn't understand relationship 'Nopes' in FROM part"),
        ("SELECT Id, FROM Opportunity", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("SELECT Id FROM Opportunity WHERE Amount > 1 AND Amount < 9 OR Name = 'x'", "MALFORMED_QUERY", "unexpected token: 'OR'"),
        ("SELECT Id, id FROM Opportunity", "MALFORMED_QUERY", "duplicate field selected: Id"),
        ("SELECT Name, COUNT(Id) FROM Opportunity", "MALFORMED_QUERY", "Field must be grouped or aggregated: Name"),
        ("SELECT Id FROM Opportunity WHERE CloseDate > '2026-01-01'", "INVALID_FIELD",
         "value of filter criterion for field 'CloseDate' must be of type date and should not be enclosed in quotes"),
        ("SELECT Id FROM Opportunity WHERE SystemModstamp > 2026-01-01", "INVALID_FIELD",
         "value of filter criterion for field 'SystemModstamp' must be of type dateTime and should not be enclosed in quotes"),
        ("SELECT Id FROM Opportunity WHERE Name = 5", "INVALID_FIELD", "must be of type string and should be enclosed in quotes"),
        ("SELECT Id FROM Opportunity WHERE Id = 'abc'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: abc"),
        ("SELECT Id FROM Opportunity WHERE Description LIKE 'x%'", "INVALID_FIELD",
         "field 'Description' can not be filtered in a query call"),
        ("SELECT Id FROM Opportunity WHERE Name = foo", "MALFORMED_QUERY", "Bind variables only allowed in Apex code"),
        ("", "MALFORMED_QUERY", "SOQL statements cannot be empty or null"),
    ],
)  # fmt: skip
def test_wrong_queries_are_refused_as_salesforce_refuses_them(w: World, soql: str, code: str, message: str) -> None:
    answer = w.raw.get(f"{w.data}/query/", params={"q": soql})
    assert answer.status_code == 400
    error = answer.json()[0]
    assert error["errorCode"] == code and message in error["message"]


def test_a_field_hidden_by_field_level_security_does_not_exist(w: World) -> None:
    w.org.hide_field("Opportunity", "NextStep")
    try:
        assert "NextStep" not in [f["name"] for f in w.sf.Opportunity.describe()["fields"]]
        with pytest.raises(SalesforceMalformedRequest, match="No such column 'NextStep'"):
            w.sf.query("SELECT NextStep FROM Opportunity")
    finally:
        w.org.hide_field("Opportunity", "NextStep", hidden=False)
    assert w.column("SELECT NextStep FROM Opportunity WHERE Name = 'delta'") == ["Call Ülrich"]


def test_archived_activities_are_for_query_all(w: World) -> None:
    w.org.con.execute('UPDATE "Task" SET "IsArchived" = true WHERE "Subject" = \'Post\'')
    assert w.column("SELECT Subject FROM Task ORDER BY Id") == ["Call"]
    assert w.column("SELECT Subject FROM Task ORDER BY Id", include_deleted=True) == ["Call", "Post"]


def test_every_answer_tells_the_api_usage(w: World) -> None:
    w.sf.query("SELECT Id FROM User LIMIT 1")
    used = w.sf.api_usage["api-usage"]
    assert used.total == w.org.daily_limit and used.used == w.org.calls_today > 0
    assert w.sf.limits()["DailyApiRequests"]["Remaining"] == w.org.daily_limit - w.org.calls_today
    assert w.clock.now() == NOW
