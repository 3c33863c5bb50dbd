"""What a write-back sends and what it records, against the stub."""

import csv
import io
import json

import pytest
from salesforce_stub import DATA, Stub, error, serving

from connectors.errors import CrmPermissionError, CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.salesforce import writeback as module
from connectors.salesforce.client import Client
from connectors.salesforce.settings import SalesforceSettings
from connectors.salesforce.writeback import as_csv, parse_error


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def send(stub, tmp_path):
    with serving(stub) as url:
        settings = SalesforceSettings(name="sales", crm="salesforce", instance_url=url, client_id="id", client_secret="right-secret")

        def run(changes, tries=3):
            (tmp_path / "changes.ndjson").write_text("".join(json.dumps(c) + "\n" for c in changes))
            client = Client(settings, RetryPolicy(tries=tries, sleep=lambda seconds: None))
            return module.write(settings, changes=tmp_path / "changes.ndjson", results=tmp_path / "results.ndjson", client=client)

        yield run


def results(tmp_path):
    lines = [json.loads(line) for line in (tmp_path / "results.ndjson").read_text().splitlines()]
    assert len(lines) == len({line["id"] for line in lines})  # each id once
    return {line["id"]: line for line in lines}


def changes(count, **fields):
    fields = fields or {"Plumbline_Status__c": "red", "Plumbline_Issues__c": None}
    return [{"id": f"006{n:012d}AAA", "fields": dict(fields)} for n in range(count)]


def refuse(*wrong, code="FIELD_CUSTOM_VALIDATION_EXCEPTION", times=99):
    left = {f"006{n:012d}AAA": times for n in wrong}

    def answer(record):
        if left.get(record["id"], 0) <= 0:
            return None
        left[record["id"]] -= 1
        return {"success": False, "errors": [{"statusCode": code, "message": "Loss reason must be set", "fields": []}]}

    return answer


def test_records_go_200_a_call_and_each_is_answered(stub, send, tmp_path):
    done = send(changes(450))
    assert (done.written, done.failed) == (450, 0)
    assert [len(records) for records in stub.bodies] == [200, 200, 50]
    first = stub.bodies[0][0]
    assert first == {
        "attributes": {"type": "Opportunity"}, "id": "006000000000000AAA", "Plumbline_Status__c": "red", "Plumbline_Issues__c": None,
    }
    assert done.calls == 3
    assert all(line["ok"] for line in results(tmp_path).values())


def test_a_records_own_refusal_leaves_the_others_alone(stub, send, tmp_path):
    stub.record = refuse(3)
    done = send(changes(10))
    assert (done.written, done.failed) == (9, 1)
    line = results(tmp_path)["006000000000003AAA"]
    assert (line["code"], line["message"]) == ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Loss reason must be set")


@pytest.mark.parametrize("bulk", [False, True])
def test_locked_rows_are_tried_again(stub, send, tmp_path, bulk, monkeypatch):
    if bulk:
        monkeypatch.setattr(module, "COLLECTIONS", 5)
    stub.record = refuse(1, 7, code="UNABLE_TO_LOCK_ROW", times=2)
    assert send(changes(10)).written == 10
    assert len(results(tmp_path)) == 10


def test_rows_that_stay_locked_are_recorded(stub, send, tmp_path):
    stub.record = refuse(1, code="UNABLE_TO_LOCK_ROW")
    done = send(changes(3))
    assert (done.written, done.failed) == (2, 1)
    assert results(tmp_path)["006000000000001AAA"]["code"] == "UNABLE_TO_LOCK_ROW"


def test_many_records_go_by_bulk_with_utf8_and_cleared_fields(stub, send, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COLLECTIONS", 20)
    monkeypatch.setattr(module, "JOB", 16)
    stub.record = lambda r: refuse(5)(r) if r["Plumbline_Top_Issue__c"] != "#N/A" else None
    sent = changes(40, Plumbline_Top_Issue__c="Łódź,\n\"soon\"")
    sent[6]["fields"] = {"Plumbline_Top_Issue__c": None}
    sent[5]["fields"] |= {"Plumbline_Score__c": 70}
    done = send(sent)
    assert (done.written, done.failed) == (39, 1)
    assert len(stub.jobs) == 3 and all(job["deleted"] for job in stub.jobs.values()) and not stub.bodies
    rows = list(csv.DictReader(io.StringIO(next(iter(stub.jobs.values()))["csv"], newline="")))
    assert rows[0] == {"Id": "006000000000000AAA", "Plumbline_Score__c": "", "Plumbline_Top_Issue__c": "Łódź,\n\"soon\""}
    assert rows[5]["Plumbline_Score__c"] == "70" and rows[6]["Plumbline_Top_Issue__c"] == "#N/A"
    assert results(tmp_path)["006000000000005AAA"]["message"] == "Loss reason must be set"


def test_collections_step_in_when_bulk_is_refused(stub, send, monkeypatch):
    monkeypatch.setattr(module, "COLLECTIONS", 5)
    stub.answer("POST .*/jobs/ingest", 400, error("API_DISABLED_FOR_BULK"))
    assert send(changes(10)).written == 10 and len(stub.bodies) == 1


def test_records_that_a_failed_job_left_are_recorded(stub, send, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COLLECTIONS", 5)
    stub.answer(r"GET .*/jobs/ingest/\w+$", 200, {"state": "Failed", "errorMessage": "InvalidBatch : Field name not found"})
    stub.answer("GET .*/(successful|failed)Results", 200, '"sf__Id","Id"\n', times=2, Content_Type="text/csv")
    done = send(changes(10))
    assert (done.written, done.failed) == (0, 10)
    assert {line["code"] for line in results(tmp_path).values()} == {"NOT_PROCESSED"}


def test_one_bad_id_does_not_refuse_its_whole_batch(stub, send, tmp_path):
    bad = "006-not-an-id"
    sent = changes(8)
    sent[5]["id"] = bad
    original = stub.handle

    def handle(h, method, path, query, body):
        if path == f"{DATA}/composite/sobjects" and bad.encode() in body:
            return h.send(400, error("MALFORMED_ID", "malformed id"))
        return original(h, method, path, query, body)

    stub.handle = handle
    done = send(sent)
    assert (done.written, done.failed) == (7, 1)
    assert results(tmp_path)[bad]["code"] == "MALFORMED_ID"


def test_unknown_field_is_told_once_for_all(stub, send, tmp_path):
    refusal = error("INVALID_FIELD", "No such column 'Plumbline_Status__c' on sobject of type Opportunity")
    stub.answer("PATCH .*/composite/sobjects", 400, refusal)
    done = send(changes(8))
    assert (done.written, done.failed, done.calls) == (0, 8, 1)


def test_what_was_acknowledged_is_kept_when_the_org_goes_away(stub, send, tmp_path):
    stub.arm("composite", lambda h: False)
    stub.answer("composite", 503, "", times=9)
    with pytest.raises(CrmUnavailableError):
        send(changes(450))
    assert len(results(tmp_path)) == 200


def test_dropped_answer_is_sent_again(stub, send, tmp_path):
    stub.drop("composite")
    assert send(changes(3)).written == 3


def test_no_right_to_edit(stub, send):
    stub.answer("composite", 403, error("INSUFFICIENT_ACCESS"))
    with pytest.raises(CrmPermissionError, match="Edit"):
        send(changes(3))


def test_nothing_to_write_makes_no_call(stub, send):
    done = send([])
    assert (done.written, done.failed, done.calls) == (0, 0, 0) and not stub.log


def test_csv_tells_unchanged_from_cleared():
    batch = [{"id": "1", "fields": {"a": None, "b": True}}, {"id": "2", "fields": {"b": ""}}, {"id": "3", "fields": {"a": 1.5}}]
    assert as_csv(batch, ["a", "b"]) == b"Id,a,b\n1,#N/A,true\n2,,#N/A\n3,1.5,\n"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("UNABLE_TO_LOCK_ROW:unable to obtain exclusive access:--", "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access"),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION:Rule 3: set it:Loss_Reason__c --", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "Rule 3: set it"),
        ("", "UNKNOWN", ""),
    ],
)
def test_errors_of_bulk_results(text, code, message):
    assert parse_error(text) == (code, message)
