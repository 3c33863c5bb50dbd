"""What a pull lands and what it says of it, against a stub that misbehaves on demand."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from salesforce_stub import DATA, NOW, Stub, deal, error, serving

from connectors.errors import CrmAuthError, CrmPermissionError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.landing import mark_loaded
from connectors.limits import Budget
from connectors.salesforce import extract, writeback
from connectors.salesforce.client import Client
from connectors.salesforce.settings import SalesforceSettings

POLICY = RetryPolicy(sleep=lambda seconds: None)


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def org(stub):
    with serving(stub) as url:
        yield url


def settings(url, **more):
    keys = {"name": "sales", "crm": "salesforce", "instance_url": url, "client_id": "id", "client_secret": "right-secret", **more}
    return SalesforceSettings(**keys)


def run(url, tmp_path, *, since=None, full=False, run_id="r1", policy=POLICY, **more):
    """A pull, taken for loaded when it ends."""
    chosen = settings(url, **more)
    result = extract.pull(chosen, run_id=run_id, landing=tmp_path, since=since or {}, full=full, client=Client(chosen, policy))
    mark_loaded(tmp_path / "sales" / run_id)
    return result


def manifest(tmp_path, obj, run_id="r1"):
    return json.loads((tmp_path / "sales" / run_id / obj / "manifest.json").read_text())


def landed(tmp_path, obj, run_id="r1"):
    """Rows of an object by id, as text."""
    rows = {}
    for file in manifest(tmp_path, obj, run_id)["files"]:
        path = tmp_path / "sales" / run_id / obj / file["name"]
        assert path.stat().st_size == file["bytes"]
        if file["format"] == "csv":
            with path.open(newline="") as text:
                records = list(csv.DictReader(text))
            assert list(records[0]) == file["columns"]
        else:
            records = json.loads(path.read_text())
        assert len(records) == file["rows"]
        rows |= {r["Id"]: {k: "" if v is None else str(v) for k, v in r.items() if k != "attributes"} for r in records}
    return rows


def ids(*numbers):
    return {f"006{n:012d}AAA" for n in numbers}


def test_first_pull_lands_everything_and_says_so(stub, org, tmp_path):
    result = run(org, tmp_path)
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))
    told = manifest(tmp_path, "Opportunity")
    assert (told["mode"], told["complete"], told["cursor"], told["since"]) == ("full", True, "SystemModstamp", None)
    assert told["watermark"] == "2026-11-14T10:00:04+00:00"  # the greatest stamp: the server's clock is later
    assert {f["name"]: f["type"] for f in told["fields"]}["Amount"] == "currency"
    assert told["calls"] == 4  # describe and three pages
    assert result.org == {
        "org_id": "00D000000000001AAA", "name": "Acme", "timezone": "Europe/Berlin", "fiscal_year_start_month": 2,
        "record_url": f"{org}/{{id}}",
    }
    assert (result.daily_limit, result.server_time) == (10000, NOW)
    document = json.loads((tmp_path / "sales" / "r1" / "pull.json").read_text())
    assert document["calls"] == sum(manifest(tmp_path, o)["calls"] for o in document["objects"]) + 1  # and getUserInfo
    assert "Task" in document["objects"]


def test_what_the_org_does_not_have_is_a_notice_not_an_error(stub, org, tmp_path):
    run(org, tmp_path)
    told = manifest(tmp_path, "CurrencyType")
    assert told["files"] == [] and not told["complete"] and "NOT_FOUND" in told["notice"]


def test_server_without_query_all_is_read_by_query(stub, org, tmp_path):
    stub.answer("/queryAll/", 404, error("NOT_FOUND"), times=99)
    run(org, tmp_path, since={"Opportunity": datetime(2026, 11, 1, tzinfo=UTC)})
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))
    assert manifest(tmp_path, "Opportunity.deleted")["files"][0]["rows"] == 1 and "queryAll" in manifest(tmp_path, "Opportunity")["notice"]


def test_setup_objects_are_read_where_queryAll_does_not_serve_them(stub, org, tmp_path):
    stub.objects["OpportunityStage"] = [{"Id": "01J000000000001AAA", "MasterLabel": "Verbal", "ApiName": "Verbal"}]
    run(org, tmp_path)
    assert set(landed(tmp_path, "OpportunityStage")) == {"01J000000000001AAA"}
    assert manifest(tmp_path, "Organization")["notice"] is None and stub.calls("queryAll.*FROM.Opportunity") == 1


@pytest.mark.parametrize(("status", "body"), [(404, "<html>no such page</html>"), (405, ""), (501, "not built"), (404, error("NOT_FOUND"))])
def test_server_without_the_optional_parts(stub, org, tmp_path, status, body):
    stub.limit = None
    for path in ("/limits", "/deleted/", "resultPages", "/Soap/", "sobjects/(?!Opportunity/)", "jobs/ingest"):
        stub.answer(path, status, body, times=30)
    run(org, tmp_path, since={"Opportunity": datetime(2026, 11, 1, tzinfo=UTC)}, api="bulk")
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))
    assert "sync" in manifest(tmp_path, "Opportunity.deleted")["notice"]


@pytest.mark.parametrize("status", [414, 431])
def test_address_that_a_proxy_finds_too_long_goes_by_bulk(stub, org, tmp_path, status):
    stub.answer("queryAll.*FROM.Opportunity", status, "")
    run(org, tmp_path)
    assert {f["format"] for f in manifest(tmp_path, "Opportunity")["files"]} == {"csv"}


def test_watermark_never_passes_the_servers_clock(stub, org, tmp_path):
    stub.objects["Opportunity"].append(deal(50, SystemModstamp="2026-11-20T02:00:30.000+0000"))  # committed while we read
    run(org, tmp_path)
    assert manifest(tmp_path, "Opportunity")["watermark"] == "2026-11-20T02:00:00+00:00"


def test_server_without_a_clock_is_believed_its_greatest_stamp(stub, org, tmp_path):
    stub.now = None
    run(org, tmp_path)
    mark = datetime.fromisoformat(manifest(tmp_path, "Opportunity")["watermark"])
    assert mark == datetime(2026, 11, 14, 10, 0, 4, tzinfo=UTC)
    run(org, tmp_path, since={"Opportunity": mark}, run_id="r2", overlap_minutes=0)
    told = manifest(tmp_path, "Opportunity", "r2")
    assert (told["mode"], set(landed(tmp_path, "Opportunity", "r2"))) == ("incremental", ids(4))
    assert datetime.fromisoformat(told["watermark"]) == mark


def test_increment_reads_from_the_watermark_less_the_overlap_and_keeps_ties(stub, org, tmp_path):
    stub.objects["Opportunity"] = [deal(n, SystemModstamp=stamp) for n, stamp in enumerate((
        "2026-11-12T08:59:59.999+0000", "2026-11-12T09:00:00.000+0000", "2026-11-12T09:00:00.000+0000", "2026-11-12T10:00:00.000+0000",
    ))]  # fmt: skip
    since = {"Opportunity": datetime(2026, 11, 12, 10, 0, 0, 700_000, tzinfo=UTC)}
    run(org, tmp_path, since=since)
    told = manifest(tmp_path, "Opportunity")
    assert set(landed(tmp_path, "Opportunity")) == ids(1, 2, 3)
    assert (told["mode"], told["complete"]) == ("incremental", False)
    assert datetime.fromisoformat(told["watermark"]) == since["Opportunity"]  # never back


def test_quiet_night_moves_no_watermark_and_costs_one_call_an_object(stub, org, tmp_path):
    mark = datetime(2026, 11, 19, tzinfo=UTC)
    run(org, tmp_path, since={"Opportunity": mark})
    told = manifest(tmp_path, "Opportunity")
    assert told["files"] == [] and datetime.fromisoformat(told["watermark"]) == mark and told["calls"] == 2


def test_full_ignores_watermarks(stub, org, tmp_path):
    run(org, tmp_path, since={"Opportunity": NOW}, full=True)
    assert manifest(tmp_path, "Opportunity")["complete"] and len(landed(tmp_path, "Opportunity")) == 5


def test_deletions_are_told_beside_the_increment(stub, org, tmp_path):
    run(org, tmp_path, since={"Opportunity": NOW - timedelta(days=1)})
    told = manifest(tmp_path, "Opportunity.deleted")
    assert told["files"][0]["rows"] == 1
    assert datetime.fromisoformat(told["watermark"]) == NOW and told["notice"] is None
    stub.log.clear()
    run(org, tmp_path, since={"Opportunity": NOW - timedelta(days=40)}, run_id="r2")
    assert "does not reach back" in manifest(tmp_path, "Opportunity.deleted", "r2")["notice"]
    listed = manifest(tmp_path, "Opportunity.ids", "r2")
    assert listed["complete"] and set(landed(tmp_path, "Opportunity.ids", "r2")) == ids(*range(5))
    asked = next(path for _, path in stub.log if "/deleted/" in path)
    assert "start=2026-11-05T02%3A05%3A00Z" in asked  # 15 days back at most


@pytest.mark.parametrize("pages", [True, False], ids=["side by side", "by locator"])
def test_bulk_lands_the_same_records_as_rest(stub, org, tmp_path, pages):
    stub.objects["Opportunity"] = [deal(n, NextStep=None, Verdict__c="ja, später") for n in range(23)]
    stub.result_pages = pages
    run(org, tmp_path, run_id="rest", api="rest")
    run(org, tmp_path, run_id="bulk", api="bulk")
    by_rest, by_bulk = landed(tmp_path, "Opportunity", "rest"), landed(tmp_path, "Opportunity", "bulk")
    for row in by_rest.values():
        row["SystemModstamp"] = row["SystemModstamp"].replace("+0000", "Z")
    assert by_bulk == by_rest
    rest, bulk = manifest(tmp_path, "Opportunity", "rest"), manifest(tmp_path, "Opportunity", "bulk")
    assert bulk["watermark"] == rest["watermark"] and bulk["complete"]
    assert all(f["columns"][0] == "SystemModstamp" for f in bulk["files"])
    assert all(job.get("deleted") for job in stub.jobs.values()) and len(stub.jobs) == 1  # small objects go by REST
    assert not list(tmp_path.rglob("*.part"))


def test_bulk_begins_where_it_pays(stub, org, tmp_path, monkeypatch):
    stub.objects["Opportunity"] = [deal(n) for n in range(9)]
    monkeypatch.setattr(extract, "BULK_CALLS", 2)  # a page, of two records here, is a call
    run(org, tmp_path, run_id="r1")
    run(org, tmp_path, run_id="r2", api="rest")
    assert [f["format"] for f in manifest(tmp_path, "Opportunity", "r1")["files"]] == ["csv"] * 5
    assert {f["format"] for f in manifest(tmp_path, "Opportunity", "r2")["files"]} == {"json_array"}


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_rest_steps_in_when_bulk_does_not_work(stub, org, tmp_path, how):
    if how == "refused":
        stub.answer("POST .*/jobs/query", 400, error("API_DISABLED_FOR_BULK"))
    else:
        stub.answer(r"GET .*/jobs/query/\w+$", 200, {"state": "Failed", "errorMessage": "x"}, times=2)
    run(org, tmp_path, api="bulk")
    assert {f["format"] for f in manifest(tmp_path, "Opportunity")["files"]} == {"json_array"}
    assert len(landed(tmp_path, "Opportunity")) == 5
    assert all(job.get("deleted") for job in stub.jobs.values())


def test_long_select_lists_never_make_a_long_url(stub, org, tmp_path):
    wide = {f"Custom_Field_Number_{n:03d}__c": n for n in range(400)}
    stub.objects["Opportunity"] = [deal(n, **wide) for n in range(3)]
    run(org, tmp_path, api="rest")
    assert max(len(path) for _, path in stub.log) < 8200
    row = landed(tmp_path, "Opportunity")["006000000000000AAA"]
    assert row["Custom_Field_Number_399__c"] == "399"
    stub.answer("POST .*/jobs/query", 400, error("FEATURE_DISABLED"))
    run(org, tmp_path, api="rest", run_id="r2")
    assert max(len(path) for _, path in stub.log) < 8200
    told = manifest(tmp_path, "Opportunity", "r2")
    assert "Amount" in {f["name"] for f in told["fields"]} and "left out" not in told["notice"]
    beside = manifest(tmp_path, "Opportunity.fields", "r2")  # what did not fit, of the same deals
    named = [f["name"] for m in (told, beside) for f in m["fields"]]
    assert set(wide) <= set(named) and len(named) == len(set(named)) + 1
    assert landed(tmp_path, "Opportunity.fields", "r2")["006000000000000AAA"]["Custom_Field_Number_399__c"] == "399"


def test_hidden_field_is_named_and_the_run_goes_on(stub, org, tmp_path):
    for row in stub.objects["Opportunity"]:
        del row["Amount"]
    run(org, tmp_path, fields={"lost_reason": "Loss_Reason__c"})
    notice = manifest(tmp_path, "Opportunity")["notice"]
    assert "Amount" in notice and "Loss_Reason__c" in notice and "StageName" not in notice


def test_field_that_goes_between_describe_and_query_is_left_away(stub, org, tmp_path):
    gone = "\nSELECT Id, Amount\n           ^\nERROR at Row:1:Column:12\nNo such column 'Amount' on entity 'Opportunity'."
    stub.answer("queryAll.*FROM.Opportunity", 400, error("INVALID_FIELD", gone))
    run(org, tmp_path)
    assert "Amount" not in landed(tmp_path, "Opportunity")["006000000000000AAA"]
    assert "Amount" in manifest(tmp_path, "Opportunity")["notice"]


def test_filter_that_is_refused_is_left_away(stub, org, tmp_path):
    stub.objects["Task"] = [{"Id": "00T000000000001AAA", "WhatId": "006000000000001AAA", "SystemModstamp": "2026-11-12T08:59:59.000+0000"}]
    stub.answer("queryAll.*What.Type", 400, error("INVALID_FIELD", "No such column 'Type' on entity 'Name'"))
    run(org, tmp_path)
    assert set(landed(tmp_path, "Task")) == {"00T000000000001AAA"}


def test_query_cursor_that_expires_is_begun_anew(stub, org, tmp_path):
    stub.answer(rf"GET {DATA}/query/\d", 400, error("INVALID_QUERY_LOCATOR"))
    run(org, tmp_path)
    assert len(landed(tmp_path, "Opportunity")) == 5 and len(manifest(tmp_path, "Opportunity")["files"]) == 3


# Faults on the way


def test_expired_token_amid_paging_and_amid_bulk(stub, org, tmp_path):
    stub.expire(rf"GET {DATA}/query/\d")
    stub.expire(r"GET .*/results\?")
    run(org, tmp_path, api="rest")
    run(org, tmp_path, api="bulk", run_id="r2")
    assert set(landed(tmp_path, "Opportunity")) == set(landed(tmp_path, "Opportunity", "r2")) == ids(*range(5))
    assert stub.issued <= 5


def test_one_thread_signs_in_for_all(stub, org, tmp_path):
    stub.objects["Opportunity"] = [deal(n) for n in range(40)]
    stub.expire(r"GET .*/results\?")
    run(org, tmp_path, api="bulk")
    assert len(landed(tmp_path, "Opportunity")) == 40
    assert stub.issued == 2


@pytest.mark.parametrize("target", ["describe", "queryAll", r"/results\?", "jobs/query", "/services/data/", "oauth2/token"])
@pytest.mark.parametrize("fault", ["503 twice", "429", "drop", "truncate"])
def test_passing_trouble_is_survived(stub, org, tmp_path, target, fault):
    if fault == "503 twice":
        stub.answer(target, 503, error("SERVER_UNAVAILABLE"), times=2)
    elif fault == "429":
        stub.answer(target, 429, "", Retry_After="1")
    else:
        getattr(stub, fault)(target)
    run(org, tmp_path, api="bulk" if "results" in target or "jobs" in target else "rest")
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))
    assert not list(tmp_path.rglob("*.part"))


def test_page_that_lacks_records_is_fetched_again(stub, org, tmp_path):
    stub.answer(r"/results\?locator=2", 200, b'"SystemModstamp","Id"\n', Sforce_NumberOfRecords="2", Content_Type="text/csv")
    run(org, tmp_path, api="bulk")
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))


def few(stub, times):
    """The last REST page says that it is the last and lacks a record."""
    short = {"totalSize": 5, "done": True, "records": [{**deal(2)}, {**deal(3)}]}
    stub.answer(rf"GET {DATA}/query/\d", 200, short, times=times)


def test_rest_pages_that_lack_records_are_read_once_more(stub, org, tmp_path):
    few(stub, times=1)
    run(org, tmp_path, since={"Opportunity": datetime(2026, 11, 1, tzinfo=UTC)})
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))


def test_records_that_do_not_come_are_not_taken_for_deleted_and_asked_for_again(stub, org, tmp_path):
    committed = datetime(2026, 11, 1, tzinfo=UTC)
    few(stub, times=2)
    run(org, tmp_path, since={"Opportunity": committed})
    told = manifest(tmp_path, "Opportunity")
    assert datetime.fromisoformat(told["watermark"]) == committed and "4 of 5 records came" in told["notice"]
    few(stub, times=2)
    run(org, tmp_path, run_id="r2")
    told = manifest(tmp_path, "Opportunity", "r2")
    assert not told["complete"] and told["watermark"] is None


def test_job_whose_pages_do_not_add_up_is_not_landed_and_begun_anew_the_next_time(stub, org, tmp_path):
    stub.answer(r"GET .*/jobs/query/\w+$", 200, {"state": "JobComplete", "numberRecordsProcessed": 7})
    with pytest.raises(CrmProtocolError, match="has 7 records, its pages hold 5"):
        run(org, tmp_path, api="bulk")
    stub.answer(r"/results\?locator=2", 200, b'"SystemModstamp","Id"\n', times=2, Sforce_NumberOfRecords="2", Content_Type="text/csv")
    with pytest.raises(CrmProtocolError, match="a page of 2 records holds 0"):
        run(org, tmp_path, api="bulk", run_id="r2")
    assert not list(tmp_path.rglob("pull.json")) and all(job["deleted"] for job in stub.jobs.values())
    run(org, tmp_path, api="bulk", run_id="r3")
    assert set(landed(tmp_path, "Opportunity", "r3")) == ids(*range(5))
    assert all(job["deleted"] for job in stub.jobs.values())


def test_job_that_fails_half_way_is_tried_once_more(stub, org, tmp_path):
    stub.answer(r"GET .*/jobs/query/\w+$", 200, {"state": "Failed", "errorMessage": "x", "numberRecordsProcessed": 3})
    run(org, tmp_path, api="bulk")
    assert {f["format"] for f in manifest(tmp_path, "Opportunity")["files"]} == {"csv"}
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))


def test_small_job_costs_few_looks(stub, org, tmp_path):
    waits = []
    run(org, tmp_path, api="bulk", policy=replace(POLICY, sleep=waits.append))
    assert waits == [0.5, 0.5] and stub.calls(r"GET .*/jobs/query/\w+$") == 2  # at work at the first look


@pytest.mark.parametrize(
    ("first", "total", "left", "job"),
    [
        (2000, 10_000, None, False),  # four more pages, or ten calls
        (2000, 20_000, None, False),
        (2000, 22_000, None, True),
        (2000, 500_000, None, True),
        (400, 4_400, None, True),  # wide records: as many calls as for 22,000
        (2000, 10_000, 3, True),  # the result waits until there are calls again
        (0, 0, 0, False),
    ],
)
def test_what_costs_fewer_calls(first, total, left, job):
    assert extract.pays(first, total, left) is job


# What the user is told


def told(error_):
    text = str(error_.value)
    assert len(text.splitlines()) == 2 and "right-secret" not in text and "SELECT" not in text and "T1" not in text
    return text


def test_wrong_secret(stub, org, tmp_path):
    with pytest.raises(CrmAuthError) as caught:
        run(org, tmp_path, client_secret="wrong-secret-9")
    assert "client_secret" in told(caught) and "wrong-secret-9" not in str(caught.value)
    assert stub.issued == 0 and len(stub.forms) == 2  # once in the header, once in the form


def test_token_that_is_refused_each_time_stops_soon(stub, org, tmp_path):
    stub.arm(".", lambda h: stub.tokens.clear() or False, times=100)
    with pytest.raises(CrmAuthError) as caught:
        run(org, tmp_path)
    assert "instance_url" in told(caught) and stub.issued == 3


def test_session_token_that_expired(stub, org, tmp_path):
    with pytest.raises(CrmAuthError) as caught:
        run(org, tmp_path, auth="session", access_token="00D000000000001!AQ.old")
    assert "access token" in told(caught) and "AQ.old" not in str(caught.value)


def test_unknown_host_and_refused_connection(tmp_path):
    with pytest.raises(CrmUnavailableError) as caught:
        run("https://no-such-org.invalid", tmp_path)
    assert "no-such-org.invalid is not known" in told(caught)
    with pytest.raises(CrmUnavailableError) as caught:
        run("http://127.0.0.1:9", tmp_path)
    assert "127.0.0.1:9 refuses the connection" in told(caught)


def test_no_permission_on_opportunity(stub, org, tmp_path):
    del stub.objects["Opportunity"]
    with pytest.raises(CrmPermissionError) as caught:
        run(org, tmp_path)
    assert "Opportunity" in told(caught) and "permission set" in str(caught.value)
    assert not (tmp_path / "sales" / "r1" / "pull.json").exists()


def test_daily_limit(stub, org, tmp_path):
    stub.answer("queryAll.*FROM.Opportunity", 403, error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."))
    result = run(org, tmp_path)
    assert result.stopped.splitlines()[0] == (
        "sales (Opportunity): Salesforce's API calls of the day are used up; what was read is kept, the next run goes on from there"
    )
    assert result.objects == ["Organization"] and result.unread[0] == "Opportunity"


def test_too_many_at_once_is_waited_for(stub, org, tmp_path):
    stub.answer("queryAll.*FROM.Opportunity", 403, error("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded."))
    run(org, tmp_path)
    assert len(landed(tmp_path, "Opportunity")) == 5


def test_our_share_of_the_day_is_never_exceeded(stub, org, tmp_path):
    stub.limit = "api-usage=0/100"
    result = run(org, tmp_path, quota_share=0.05)
    assert "stopped after 5 API calls: quota_share = 0.05 of the day's 100 is used up in this run; what was read" in result.stopped
    assert stub.calls(DATA) == 5 and result.calls == 5


def test_what_a_run_writes_back_counts_against_the_share_of_what_it_read(stub, org, tmp_path, monkeypatch):
    chosen, budget = settings(org, quota_share=0.5), Budget("sales", 0.5)
    stub.limit = "api-usage=0/100"
    extract.pull(chosen, run_id="r1", landing=tmp_path, since={}, client=Client(chosen, POLICY, budget))
    left = budget.remaining
    assert 0 < left < 40 and budget.total == stub.calls(f"{DATA}|/Soap/") == 50 - left
    changes = [{"id": f"006{n:012d}AAA", "fields": {"Plumbline_Score__c": n}} for n in range(200 * (left + 1))]
    (tmp_path / "changes").write_text("".join(json.dumps(change) + "\n" for change in changes))
    monkeypatch.setattr(writeback, "COLLECTIONS", len(changes))
    with pytest.raises(CrmQuotaError, match=r"stopped after 50 API calls: quota_share = 0\.5"):
        writeback.write(chosen, changes=tmp_path / "changes", results=tmp_path / "results", client=Client(chosen, POLICY, budget))
    assert stub.calls(f"{DATA}|/Soap/") == 50
    assert len((tmp_path / "results").read_text().splitlines()) == 200 * left


def test_what_others_left_of_the_day_is_respected(stub, org, tmp_path):
    stub.limit = "api-usage=100/100"
    with pytest.raises(CrmQuotaError) as caught:
        run(org, tmp_path)
    assert "all 100 API calls" in told(caught) and stub.calls(DATA) == 0
    assert not (tmp_path / "sales" / "r1" / "pull.json").exists()


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b"[]"])
def test_answer_that_is_not_salesforces(stub, org, tmp_path, body):
    stub.answer("queryAll.*FROM.Opportunity", 200, body, Content_Type="text/html")
    with pytest.raises(CrmProtocolError) as caught:
        run(org, tmp_path)
    assert "instance_url" in told(caught) and "login" not in str(caught.value).splitlines()[0]


def test_redirect_to_another_address(stub, org, tmp_path):
    stub.answer("describe", 302, "", Location="https://new.my.salesforce.com/x?sid=secret", times=9)
    with pytest.raises(CrmProtocolError) as caught:
        run(org, tmp_path)
    assert "new.my.salesforce.com" in told(caught) and "sid" not in str(caught.value)


def test_server_that_stays_down(stub, org, tmp_path):
    stub.answer("queryAll", 503, "busy", times=50)
    with pytest.raises(CrmUnavailableError) as caught:
        run(org, tmp_path, policy=replace(POLICY, tries=3))
    assert "503" in told(caught) and stub.calls("queryAll") == 3


def test_next_page_is_asked_of_the_configured_host_whichever_it_names(stub, org, tmp_path):
    def elsewhere(h):
        h.send(200, {"totalSize": 5, "done": False, "nextRecordsUrl": "https://acme.example/services/data/v60.0/query/x-0", "records": []})
        stub.answer("/query/x-0", 200, {"totalSize": 5, "done": True, "records": stub.objects["Opportunity"]})
        return True

    stub.arm("queryAll.*FROM.Opportunity", elsewhere)
    run(org, tmp_path)
    assert set(landed(tmp_path, "Opportunity")) == ids(*range(5))


def test_next_page_outside_the_api_is_refused(stub, org, tmp_path):
    page = {"totalSize": 2, "done": False, "nextRecordsUrl": "https://evil.example/x", "records": []}
    stub.answer("queryAll.*FROM.Opportunity", 200, page)
    with pytest.raises(CrmProtocolError, match="outside its API"):
        run(org, tmp_path)


def test_version_newest_that_both_know(stub, org, tmp_path):
    stub.versions = ["59.0", "60.0", "99.0"]
    run(org, tmp_path)
    with pytest.raises(CrmProtocolError, match=r"61\.0"):
        run(org, tmp_path, api_version="61.0", run_id="r2")


def test_org_that_has_only_newer_versions_gets_the_oldest_of_them(stub, org):
    stub.versions = ["98.0", "99.0"]
    client = Client(settings(org), POLICY)
    client.connect()
    assert client.data == "/services/data/v98.0"


def test_left_overs_of_a_killed_run_are_not_landed(stub, org, tmp_path):
    directory = tmp_path / "sales" / "r1" / "Opportunity"
    directory.mkdir(parents=True)
    (directory / "part-00007.json").write_text("[")
    run(org, tmp_path)
    assert not Path(directory / "part-00007.json").exists()
