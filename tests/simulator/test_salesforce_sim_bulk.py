"""Bulk API 2.0: query jobs with their pages, and ingest jobs with their results."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from salesforce_sim_help import NOW, World, table, world
from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceOperationError

SOQL = "SELECT Id, Name, Amount, IsClosed, CloseDate, SystemModstamp, Account.Name FROM Opportunity"


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        account = w.org.create("Account", {"Name": 'Acme, "Łódź"'})
        rows = [
            {"Name": f"Deal {n}\nsecond line\u2028x", "StageName": "Prospecting", "CloseDate": "2026-12-31",
             "Amount": n * 1_000_000 or None, "AccountId": account if n % 2 else None}
            for n in range(25)
        ]  # fmt: skip
        outcomes = w.org.create_many("Opportunity", rows)
        w.org.delete("Opportunity", outcomes[24].id or "")
        yield w


def test_the_client_reads_all_pages(w: World) -> None:
    pages = list(w.sf.bulk2.Opportunity.query(SOQL + " ORDER BY Id", max_records=10, wait=0.01))
    assert [len(table(page)) for page in pages] == [10, 10, 4]
    first = table(pages[0])
    assert list(first[0]) == ["Id", "Name", "Amount", "IsClosed", "CloseDate", "SystemModstamp", "Account.Name"]
    assert first[0] | {
        "Name": "Deal 0\nsecond line\u2028x", "Amount": "", "IsClosed": "false", "CloseDate": "2026-12-31",
        "SystemModstamp": "2026-11-23T09:00:00.000Z", "Account.Name": "",
    } == first[0]  # fmt: skip
    assert first[1]["Amount"] == "1000000.0" and first[1]["Account.Name"] == 'Acme, "Łódź"'
    assert table(pages[1])[0]["Amount"] == "1.0E7", "from ten million on as Java writes doubles"


def test_query_all_gives_deleted_ones(w: World) -> None:
    pages = list(w.sf.bulk2.Opportunity.query_all("SELECT Name, IsDeleted FROM Opportunity WHERE IsDeleted = true", wait=0.01))
    assert [row["IsDeleted"] for page in pages for row in table(page)] == ["true"]


def test_everything_is_quoted_in_the_line_ending_and_delimiter_asked_for(w: World) -> None:
    job = w.bulk("SELECT Amount, Name FROM Opportunity ORDER BY Id LIMIT 2", lineEnding="CRLF", columnDelimiter="SEMICOLON")
    answer = w.raw.get(f"{w.data}/jobs/query/{job['id']}/results")
    assert answer.headers["Sforce-NumberOfRecords"] == "2" and answer.headers["Sforce-Locator"] == "null"
    assert answer.headers["Content-Type"] == "text/csv;charset=UTF-8"
    line = "Deal {}\nsecond line\u2028x"
    assert answer.content.decode() == f'"Amount";"Name"\r\n"";"{line.format(0)}"\r\n"1000000.0";"{line.format(1)}"\r\n'


def test_states_and_shape_of_a_job(w: World) -> None:
    body = {"operation": "query", "query": SOQL}
    made = w.raw.post(f"{w.data}/jobs/query", json=body).json()
    assert made | {
        "operation": "query", "object": "Opportunity", "state": "UploadComplete", "contentType": "CSV", "apiVersion": 62.0,
        "lineEnding": "LF", "columnDelimiter": "COMMA", "concurrencyMode": "Parallel", "createdById": w.org.integration_user_id,
    } == made  # fmt: skip
    first = w.raw.get(f"{w.data}/jobs/query/{made['id']}").json()
    assert first["state"] == "InProgress" and first["numberRecordsProcessed"] == 0 and first["jobType"] == "V2Query"
    done = w.wait("query", made["id"])
    assert (done["state"], done["numberRecordsProcessed"]) == ("JobComplete", 24)
    assert w.raw.delete(f"{w.data}/jobs/query/{made['id']}").status_code == 204
    assert w.raw.get(f"{w.data}/jobs/query/{made['id']}").status_code == 404


def test_result_pages_can_be_fetched_side_by_side(w: World) -> None:
    job = w.bulk(SOQL)["id"]
    url, starts = f"{w.data}/jobs/query/{job}/resultPages?maxRecords=4", []
    while url:
        answer = w.raw.get(url).json()
        assert 1 <= len(answer["resultPages"]) <= 5
        starts += [page["resultUrl"] for page in answer["resultPages"]]
        assert answer["done"] is (answer["nextRecordsUrl"] is None)
        url = answer["nextRecordsUrl"] and w.url + answer["nextRecordsUrl"]
    assert len(starts) == 6
    with ThreadPoolExecutor(5) as pool:
        pages = list(pool.map(lambda path: w.raw.get(w.url + path).content.decode(), starts))
    ids = [row["Id"] for page in pages for row in table(page)]
    assert len(ids) == len(set(ids)) == 24
    other = w.raw.get(f"{w.url}/services/data/v60.0/jobs/query/{job}/resultPages")
    assert other.status_code == 409


def test_an_aborted_job_has_no_results(w: World) -> None:
    w.org.in_progress_polls = 1_000_000
    job = w.raw.post(f"{w.data}/jobs/query", json={"operation": "query", "query": SOQL}).json()["id"]
    w.org.in_progress_polls = 1
    early = w.raw.get(f"{w.data}/jobs/query/{job}")
    assert early.json()["state"] == "InProgress"
    ended = w.raw.patch(f"{w.data}/jobs/query/{job}", json={"state": "Aborted"})
    assert ended.json()["state"] == "Aborted"
    assert w.raw.get(f"{w.data}/jobs/query/{job}/results").status_code == 400
    assert w.raw.patch(f"{w.data}/jobs/query/{job}", json={"state": "Aborted"}).json()[0]["errorCode"] == "INVALIDJOBSTATE"


@pytest.mark.parametrize(
    ("soql", "message"),
    [
        ("SELECT Id, Nope__c FROM Opportunity", "No such column 'Nope__c' on entity 'Opportunity'"),
        ("SELECT Id, (SELECT Id FROM OpportunityContactRoles) FROM Opportunity", "Nested query is not supported"),
        ("SELECT COUNT(Id) FROM Opportunity", "Aggregate Relationships not supported in Bulk Query"),
        ("SELECT Id FROM Opportunity OFFSET 5", "OFFSET"),
        ("SELECT BillingAddress FROM Account", "compound data not supported in Bulk Query"),
    ],
)
def test_what_bulk_does_not_query(w: World, soql: str, message: str) -> None:
    answer = w.raw.post(f"{w.data}/jobs/query", json={"operation": "query", "query": soql})
    assert answer.status_code == 400 and answer.json()[0]["errorCode"] == "API_ERROR" and message in answer.json()[0]["message"]


def test_bulk_can_be_switched_off(w: World) -> None:
    w.org.bulk_enabled = False
    try:
        answer = w.raw.post(f"{w.data}/jobs/query", json={"operation": "query", "query": SOQL})
        assert answer.status_code == 403 and answer.json()[0]["errorCode"] == "FEATURENOTENABLED"
    finally:
        w.org.bulk_enabled = True


def test_ingest_updates_and_tells_of_each_record(w: World) -> None:
    ids = w.column("SELECT Id FROM Opportunity ORDER BY Id LIMIT 3")
    w.org.update("Opportunity", ids[1], {"NextStep": "to be cleared", "Description": "stays"})
    rows = [
        {"Id": ids[0], "NextStep": 'Łódź, "quoted"\nline', "Description": "new"},
        {"Id": ids[1], "NextStep": "#N/A", "Description": ""},
        {"Id": ids[2], "NextStep": "x" * 300, "Description": "d"},
        {"Id": "0065g00000zzzzzAAA", "NextStep": "n", "Description": "d"},
    ]
    job = w.sf.bulk2.Opportunity.update(records=rows, wait=0.01)[0]
    assert (job["numberRecordsProcessed"], job["numberRecordsFailed"]) == (4, 2)
    assert w.row(ids[0], "NextStep", "Description") == ('Łódź, "quoted"\nline', "new")
    assert w.row(ids[1], "NextStep", "Description") == (None, "stays"), "#N/A clears, an empty cell leaves"
    results = w.sf.bulk2.Opportunity
    good = table(results.get_successful_records(job["job_id"]))
    assert [(r["sf__Id"], r["sf__Created"], r["Id"]) for r in good] == [(ids[0], "false", ids[0]), (ids[1], "false", ids[1])]
    assert good[0]["NextStep"] == 'Łódź, "quoted"\nline'
    bad = table(results.get_failed_records(job["job_id"]))
    assert [r["sf__Id"] for r in bad] == [ids[2], "0065g00000zzzzzAAA"]
    assert bad[0]["sf__Error"].startswith("STRING_TOO_LONG:Next Step: data value too large: xxx")
    assert bad[0]["sf__Error"].endswith("(max length=255):NextStep --")
    assert bad[1]["sf__Error"] == "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id: --"
    assert table(results.get_unprocessed_records(job["job_id"])) == []


def test_ingest_inserts_upserts_and_deletes(w: World) -> None:
    rows = [{"Name": f"Bulk {n}", "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": str(n)} for n in range(300)]
    made = w.sf.bulk2.Opportunity.insert(records=rows, wait=0.01)[0]
    assert made["numberRecordsFailed"] == 0 and w.sf.query("SELECT COUNT() FROM Opportunity WHERE Name LIKE 'Bulk %'")["totalSize"] == 300
    ids = [r["sf__Id"] for r in table(w.sf.bulk2.Opportunity.get_successful_records(made["job_id"]))]
    assert w.sf.query(f"SELECT COUNT() FROM OpportunityHistory WHERE OpportunityId = '{ids[7]}'")["totalSize"] == 1
    keys = [{"Key__c": f"k{n}", "Score__c": str(n)} for n in range(5)]
    w.sf.bulk2.Plumbline_Snapshot__c.upsert(records=keys[:3], external_id_field="Key__c", wait=0.01)
    again = w.sf.bulk2.Plumbline_Snapshot__c.upsert(records=keys, external_id_field="Key__c", wait=0.01)[0]
    created = [r["sf__Created"] for r in table(w.sf.bulk2.Plumbline_Snapshot__c.get_successful_records(again["job_id"]))]
    assert sorted(created) == ["false"] * 3 + ["true"] * 2
    gone = w.sf.bulk2.Opportunity.delete(records=[{"Id": i} for i in ids], wait=0.01)[0]
    assert gone["numberRecordsFailed"] == 0 and w.sf.query("SELECT COUNT() FROM Opportunity WHERE Name LIKE 'Bulk %'")["totalSize"] == 0


def test_an_upload_with_an_unknown_column_fails_whole(w: World) -> None:
    job = w.raw.post(f"{w.data}/jobs/ingest", json={"operation": "update", "object": "Opportunity"}).json()
    assert job["state"] == "Open" and job["contentUrl"].endswith(f"{job['id']}/batches")
    csv_headers = {"Content-Type": "text/csv"}
    assert w.raw.put(f"{w.data}/jobs/ingest/{job['id']}/batches", data=b"Id,Nope__c\nx,1\n", headers=csv_headers).status_code == 201
    w.raw.patch(f"{w.data}/jobs/ingest/{job['id']}", json={"state": "UploadComplete"})
    done = w.wait("ingest", job["id"])
    assert done["state"] == "Failed" and done["errorMessage"] == "InvalidBatch : Field name not found : Nope__c"
    assert w.raw.get(f"{w.data}/jobs/ingest/{job['id']}/unprocessedRecords").content == b"Id,Nope__c\nx,1\n"
    with pytest.raises(SalesforceMalformedRequest):
        w.sf.restful(f"jobs/ingest/{job['id']}", method="PATCH", json={"state": "UploadComplete"})


def make(w: World, soql: str = SOQL) -> str:
    return w.raw.post(f"{w.data}/jobs/query", json={"operation": "query", "query": soql}).json()["id"]


def test_the_org_lists_its_jobs_a_page_at_a_time(w: World) -> None:
    w.org.jobs.clear()
    jobs = {make(w) for _ in range(3)}
    w.sf.bulk2.Opportunity.update(records=[{"Id": w.column("SELECT Id FROM Opportunity LIMIT 1")[0], "NextStep": "x"}], wait=0.01)
    for job in jobs:
        w.wait("query", job)
    w.org.job_page = 2
    url, seen, pages = f"{w.data}/jobs/query", [], 0
    while url:
        answer = w.raw.get(url).json()
        seen += answer["records"]
        pages += 1
        assert answer["done"] is (answer["nextRecordsUrl"] is None)
        url = answer["nextRecordsUrl"] and w.url + answer["nextRecordsUrl"]
    w.org.job_page = 1000
    assert pages == 2 and {r["id"] for r in seen} == jobs
    assert set(seen[0]) == {
        "id", "operation", "object", "createdById", "createdDate", "systemModstamp", "state", "concurrencyMode", "contentType",
        "apiVersion", "jobType", "lineEnding", "columnDelimiter",
    }  # fmt: skip
    listed = {
        asked: len(w.raw.get(f"{w.data}/jobs/{asked}").json()["records"])
        for asked in ("query?jobType=V2Query", "query?jobType=Classic", "query?isPkChunkingEnabled=true", "query?concurrencyMode=serial",
                      "query?isPkChunkingEnabled=false&concurrencyMode=parallel", "ingest", "ingest?jobType=V2Ingest")
    }  # fmt: skip
    assert list(listed.values()) == [3, 0, 0, 0, 3, 1, 1], listed
    assert w.raw.get(f"{w.data}/jobs/query?jobType=Fast").status_code == 400
    assert w.raw.get(f"{w.data}/jobs/query?queryLocator=mine").json()[0]["errorCode"] == "INVALID_QUERY_LOCATOR"


def test_only_a_job_that_has_ended_can_be_deleted(w: World) -> None:
    w.org.hold_jobs = True
    job = make(w)
    refused = w.raw.delete(f"{w.data}/jobs/query/{job}")
    assert (refused.status_code, refused.json()) == (
        400, [{"errorCode": "API_ERROR", "message": "Error encountered when deleting the job because the job is not terminated"}],
    )  # fmt: skip
    assert w.raw.get(f"{w.data}/jobs/query/{job}/results").json()[0]["errorCode"] == "INVALIDJOBSTATE"
    assert w.raw.patch(f"{w.data}/jobs/query/{job}", json={"state": "Aborted"}).json()["state"] == "Aborted"
    w.org.release_jobs()
    again = w.raw.patch(f"{w.data}/jobs/query/{job}", json={"state": "Aborted"}).json()
    assert again == [{"errorCode": "INVALIDJOBSTATE", "message": "Aborting already Completed Job not allowed"}]
    assert w.raw.delete(f"{w.data}/jobs/query/{job}").status_code == 204
    open_ingest = w.raw.post(f"{w.data}/jobs/ingest", json={"operation": "update", "object": "Opportunity"}).json()["id"]
    assert w.raw.delete(f"{w.data}/jobs/ingest/{open_ingest}").status_code == 400
    assert w.raw.patch(f"{w.data}/jobs/ingest/{open_ingest}", json={"state": "Aborted"}).json()["state"] == "Aborted"
    assert w.raw.delete(f"{w.data}/jobs/ingest/{open_ingest}").status_code == 204
    assert not {job, open_ingest} & {j.id for j in w.org.jobs.all()}


def test_jobs_fail_when_they_are_told_to(w: World) -> None:
    w.faults.arm("job_failed", times=2, after=1, path="query .* FROM Opportunity", message="Unable to process the query")
    ends = [w.bulk(soql) for soql in (SOQL, "SELECT Id FROM User", SOQL, SOQL, SOQL)]
    assert [e["state"] for e in ends] == ["JobComplete", "JobComplete", "Failed", "Failed", "JobComplete"]
    assert ends[2]["errorMessage"] == "InvalidBatch : Unable to process the query" and "errorMessage" not in ends[0]
    assert w.raw.get(f"{w.data}/jobs/query/{ends[2]['id']}/results").status_code == 400
    w.faults.arm("job_failed", path="jobs/ingest update Opportunity")
    with pytest.raises(SalesforceOperationError, match="InvalidBatch : Retried more than 15 times"):
        w.sf.bulk2.Opportunity.update(records=[{"Id": w.column("SELECT Id FROM Opportunity LIMIT 1")[0], "NextStep": "not"}], wait=0.01)
    assert w.column("SELECT Id FROM Opportunity WHERE NextStep = 'not'") == []


def test_a_job_fails_when_its_field_is_taken_away_while_it_waits(w: World) -> None:
    w.org.hold_jobs = True
    job = make(w, "SELECT Id, NextStep FROM Opportunity")
    assert w.raw.get(f"{w.data}/jobs/query/{job}").json()["state"] == "InProgress"
    w.org.hide_field("Opportunity", "NextStep")
    try:
        w.org.release_jobs()
        ended = w.wait("query", job)
    finally:
        w.org.hide_field("Opportunity", "NextStep", hidden=False)
    assert ended["state"] == "Failed" and ended["errorMessage"].startswith("InvalidBatch : Failed to process query: INVALID_FIELD: ")
    assert "No such column 'NextStep'" in ended["errorMessage"]


def test_pages_can_be_made_small_and_tell_their_records(w: World) -> None:
    w.org.bulk_page, w.org.query_page = 10, 7
    try:
        job = w.bulk(SOQL)["id"]
        locator, sizes = "", []
        while locator != "null":
            url = f"{w.data}/jobs/query/{job}/results?maxRecords=50000" + (f"&locator={locator}" if locator else "")
            page = w.raw.get(url)
            assert int(page.headers["Sforce-NumberOfRecords"]) == len(table(page.content.decode()))
            sizes.append(int(page.headers["Sforce-NumberOfRecords"]))
            locator = page.headers["Sforce-Locator"]
        assert sizes == [10, 10, 4]
        assert len(w.raw.get(f"{w.data}/jobs/query/{job}/resultPages").json()["resultPages"]) == 3
        first = w.sf.query(SOQL, headers={"Sforce-Query-Options": "batchSize=2000"})
        assert len(first["records"]) == 7 and first["totalSize"] == 24 and len(w.records(SOQL)) == 24
    finally:
        w.org.bulk_page = w.org.query_page = None


def test_a_job_is_kept_for_a_week(w: World) -> None:
    job = w.bulk("SELECT Id FROM User")["id"]
    w.clock.advance(timedelta(days=8))
    try:
        assert w.raw.get(f"{w.data}/jobs/query/{job}").status_code == 404
        assert w.raw.get(f"{w.data}/jobs/query").json()["records"] == []
    finally:
        w.clock.set(NOW)
