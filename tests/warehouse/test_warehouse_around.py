"""Everything around the deal: pipelines and their stages over time, people, activities, products, rates, days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from warehouse_land import (
    ADA,
    BO,
    NOON,
    ORG,
    STAGES,
    USERS,
    SalesforcePull,
    counts,
    deal,
    deals_of,
    history,
    inbound,
    one,
    opp_id,
    opportunity,
    pipeline,
    rows,
    stage_rows,
    stamp,
    user,
)

from connectors.http import RetryPolicy
from connectors.landing import mark_loaded
from connectors.salesforce import extract
from connectors.salesforce.client import Client
from connectors.salesforce.objects import OBJECTS
from connectors.salesforce.settings import SalesforceSettings
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import SalesforceOrg
from warehouse import ops, stages
from warehouse.load import known_fields, load

DAY = timedelta(days=1)
NEW, RENEWAL = "012000000000001AAA", "012000000000002AAA"
PROCESSES = [
    {"Id": f"01900000000000{i}AAA", "Name": name, "IsActive": True, "TableEnumOrId": "Opportunity", "SystemModstamp": stamp(NOON)}
    for i, name in enumerate(("Field Sales", "Renewals", "Old"))
]


def record_types(*names: str, at: datetime = NOON) -> list[dict[str, Any]]:
    """Record types NEW, RENEWAL, … by these names, each with the process in its place."""
    return [
        {
            "Id": f"01200000000000{i + 1}AAA", "Name": name, "SobjectType": "Opportunity", "IsActive": True,
            "BusinessProcessId": PROCESSES[i]["Id"], "SystemModstamp": stamp(at),
        }
        for i, name in enumerate(names)
    ]  # fmt: skip


def landed(root: Path, run: int, deals: list[dict[str, Any]], *, full: bool = False, **objects: Any) -> Path:
    """A pull of the deals, the org's stages and what a test is about. None: the org refuses it."""
    pull = SalesforcePull(root, run, full=full).add("Opportunity", deals)
    for name, records in ({"OpportunityStage": stage_rows()} | objects).items():
        pull = pull.refused(name) if records is None else pull.add(name, records)
    return pull.done()


def told(**stages_of: list[str]) -> list[dict[str, Any]]:
    """What the org says of its record types' stages."""
    ids = {"new": NEW, "renewal": RENEWAL}
    return [{"Id": ids[name], "Stages": orjson.dumps(values).decode()} for name, values in stages_of.items()]


def listed(con: Any, name: str) -> list[str]:
    return [row["crm_stage"] for row in stages.list_stages(con, "sales") if row["pipeline"] == name]


ALL = [name for name, *_ in STAGES]
SHORT = ["Proposal/Price Quote", "Closed Won", "Closed Lost"]
TYPES = {"RecordType": record_types("New Business", "Renewal"), "BusinessProcess": PROCESSES}


# Pipelines -----------------------------------------------------------------------------------------------------------------------


def test_pipelines_are_record_types_with_their_sales_process(con: Any, tmp_path: Path) -> None:
    types = [
        *record_types("New Business", "Renewal"),
        {**record_types("x", "x", "Retired")[2], "IsActive": False},
        {"Id": "012000000000009AAA", "Name": "Person", "SobjectType": "Account", "IsActive": True},
    ]
    deals = [opportunity(1, RecordTypeId=NEW), opportunity(2), opportunity(3, RecordTypeId="012000000000008AAA")]
    load(con, landed(tmp_path, 1, deals, full=True, RecordType=types, BusinessProcess=PROCESSES), now=NOON)
    found = rows(con, "select pipeline, pipeline_id, label, sales_process, is_active from core.pipeline order by pipeline, pipeline_id")
    assert [tuple(row.values()) for row in found] == [
        ("New Business", NEW, "New Business", "Field Sales", True),
        ("Renewal", RENEWAL, "Renewal", "Renewals", True),
        ("Retired", "012000000000003AAA", "Retired", "Old", False),
        ("default", "012000000000008AAA", None, None, None),  # a record type that is hidden from us
        ("default", None, None, None, True),
    ]
    load(con, landed(tmp_path, 2, [opportunity(2, NOON + DAY, RecordTypeId=NEW)], RecordType=types, BusinessProcess=None), now=NOON + DAY)
    found = rows(con, "select pipeline, pipeline_id, sales_process from core.pipeline order by pipeline, pipeline_id")
    assert [row["pipeline_id"] for row in found] == [NEW, RENEWAL, "012000000000003AAA", "012000000000008AAA"]
    assert found[0]["sales_process"] == "Field Sales"  # what cannot be read this time stays known


def test_pipelines_of_hubspot(con: Any, tmp_path: Path) -> None:
    pull = inbound(tmp_path, 1, [deal(1), deal(2, pipeline="77", dealstage="771")], full=True, pipelines=[pipeline()])
    load(con, pull, now=NOON)
    found = rows(con, "select pipeline, pipeline_id, label, is_active from core.pipeline order by pipeline")
    assert [tuple(row.values()) for row in found] == [("77", "77", None, None), ("Sales Pipeline", "default", "Sales Pipeline", True)]


def test_the_stage_list_shows_what_the_sales_process_has(con: Any, tmp_path: Path) -> None:
    """Salesforce shares stages among record types; the process takes some. What deals are or were in is listed all the same."""
    moved = [history(2, 1, NOON - 9 * DAY, "Prospecting"), history(2, 2, NOON - DAY, "Closed Won")]
    deals = [opportunity(1, RecordTypeId=NEW), opportunity(2, RecordTypeId=RENEWAL, StageName="Closed Won", IsClosed=True, IsWon=True),
             opportunity(3, RecordTypeId=RENEWAL, StageName="Negotiation/Review")]  # fmt: skip
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityHistory=moved, **TYPES), now=NOON)
    assert listed(con, "Renewal") == ALL  # nobody told, so all stages count
    stages.confirm(con, "sales", "Renewal", "Needs Analysis", "qualified", NOON)

    night = landed(tmp_path, 2, [], **TYPES, **{"RecordType.stages": told(new=ALL, renewal=SHORT)})
    load(con, night, now=NOON + DAY)
    assert listed(con, "New Business") == ALL
    # Without "Qualification": nobody was ever in it. "Needs Analysis" was confirmed by somebody, the others have or had deals.
    assert listed(con, "Renewal") == ["Prospecting", "Needs Analysis", "Proposal/Price Quote", "Negotiation/Review", "Closed Won", "Closed Lost"]
    active = rows(con, "select crm_stage from core.stage_map where pipeline = 'Renewal' and is_active order by position")
    assert [row["crm_stage"] for row in active] == SHORT
    first = one(con, "select position, label, probability from core.stage_map where pipeline = 'Renewal' and crm_stage = 'Prospecting'")
    assert first == {"position": 1, "label": "Prospecting", "probability": Decimal("0.1")}  # known from the org, though not the process's

    load(con, landed(tmp_path, 3, [], **TYPES), now=NOON + 2 * DAY)  # a night in which nobody is asked changes nothing
    assert listed(con, "Renewal")[:2] == ["Prospecting", "Needs Analysis"]
    grown = told(new=ALL, renewal=[*SHORT, "Qualification"])
    load(con, landed(tmp_path, 4, [], **TYPES, **{"RecordType.stages": grown}), now=NOON + 3 * DAY)
    assert "Qualification" in listed(con, "Renewal")


def test_a_renamed_record_type_is_the_same_pipeline(con: Any, tmp_path: Path) -> None:
    """The name follows everywhere, what was confirmed and configured of its stages stays, and no deal has changed."""
    config = {"Renewal": {"Needs Analysis": "qualified"}}
    deals = [opportunity(1, RecordTypeId=RENEWAL, StageName="Orbit Check"), opportunity(2, RecordTypeId=NEW, StageName="Orbit Check")]
    definitions = stage_rows(("Orbit Check", 45, False, False))
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityStage=definitions, **TYPES), now=NOON, stages=config)
    stages.confirm(con, "sales", "Renewal", "Orbit Check", "negotiation", NOON)
    con.execute("""
        insert into bi.pipeline_snapshot (snapshot_date, source, pipeline, stage, deals, taken_at)
        values ('2026-11-20', 'sales', 'Renewal', 'negotiation', 1, now()), ('2026-11-20', 'inbound', 'Renewal', 'negotiation', 1, now());
        insert into quality.waiver (waiver_id, scope, scope_key, rule_id, reason, valid_from, valid_until)
        values ('w1', 'pipeline', 'sales:Renewal', '*', 'quiet by design', now(), now());
    """)
    renamed = record_types("New Business", "Renewals & Upsell", at=NOON + DAY)
    night = landed(tmp_path, 2, [], OpportunityStage=definitions, RecordType=renamed, BusinessProcess=PROCESSES)
    result = load(con, night, now=NOON + DAY, stages=config)
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)
    held = deals_of(con)
    assert (held[opp_id(1)]["pipeline"], held[opp_id(1)]["stage"], held[opp_id(2)]["stage"]) == ("Renewals & Upsell", "negotiation", "unmapped")
    mapped = rows(con, "select crm_stage, stage, origin from core.stage_map where pipeline = 'Renewals & Upsell'")
    assert {"crm_stage": "Orbit Check", "stage": "negotiation", "origin": "confirmed"} in mapped
    assert {"crm_stage": "Needs Analysis", "stage": "qualified", "origin": "config"} in mapped  # the configuration says its former name
    assert rows(con, "from core.stage_map where pipeline = 'Renewal'") == []
    assert one(con, "select former_names from core.pipeline where pipeline_id = $1", RENEWAL)["former_names"] == ["Renewal"]
    versions = rows(con, "select pipeline, valid_to from core.opportunity_version where opportunity_key like '%1AAA'")
    assert versions == [{"pipeline": "Renewals & Upsell", "valid_to": None}]
    assert rows(con, "select distinct pipeline from core.stage_version order by 1") == [
        {"pipeline": "New Business"}, {"pipeline": "Renewals & Upsell"},
    ]  # fmt: skip
    assert one(con, "select count(*) as n from core.stage_version where valid_to is not null")["n"] == 0
    assert rows(con, "select source, pipeline from bi.pipeline_snapshot order by source") == [
        {"source": "inbound", "pipeline": "Renewal"}, {"source": "sales", "pipeline": "Renewals & Upsell"},
    ]  # fmt: skip
    assert one(con, "select scope_key from quality.waiver")["scope_key"] == "sales:Renewals & Upsell"


def test_two_record_types_that_swap_their_names_keep_their_own_map(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1, RecordTypeId=NEW, StageName="Orbit Check"), opportunity(2, RecordTypeId=RENEWAL, StageName="Orbit Check")]
    definitions = stage_rows(("Orbit Check", 45, False, False))
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityStage=definitions, **TYPES), now=NOON)
    stages.confirm(con, "sales", "New Business", "Orbit Check", "proposal", NOON)
    stages.confirm(con, "sales", "Renewal", "Orbit Check", "discovery", NOON)
    swapped = record_types("Renewal", "New Business", at=NOON + DAY)
    load(con, landed(tmp_path, 2, [], OpportunityStage=definitions, RecordType=swapped, BusinessProcess=PROCESSES), now=NOON + DAY)
    held = deals_of(con)
    assert [(held[opp_id(n)]["pipeline"], held[opp_id(n)]["stage"]) for n in (1, 2)] == [("Renewal", "proposal"), ("New Business", "discovery")]


def test_a_record_type_that_takes_a_name_in_use_joins_it(con: Any, tmp_path: Path) -> None:
    """Two record types by one name are one pipeline; when one of them gets a name of its own, both keep what was confirmed."""
    deals = [opportunity(1, RecordTypeId=NEW, StageName="Orbit Check"), opportunity(2, RecordTypeId=RENEWAL, StageName="Orbit Check")]
    definitions = stage_rows(("Orbit Check", 45, False, False))
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityStage=definitions, **TYPES), now=NOON)
    stages.confirm(con, "sales", "Renewal", "Orbit Check", "discovery", NOON)
    for run, names in enumerate([("Renewal", "Renewal"), ("Sales", "Renewal")], 2):
        night = landed(tmp_path, run, [], OpportunityStage=definitions, RecordType=record_types(*names), BusinessProcess=PROCESSES)
        load(con, night, now=NOON + run * DAY)
        held = deals_of(con)
        assert [(held[opp_id(n)]["pipeline"], held[opp_id(n)]["stage"]) for n in (1, 2)] == [(name, "discovery") for name in names]
        doubles = rows(con, "select source, pipeline, crm_stage from core.stage_map group by all having count(*) > 1")
        doubles += rows(con, "select pipeline, crm_stage from core.stage_version where valid_to is null group by all having count(*) > 1")
        assert doubles == []


def test_record_types_that_become_readable_take_over_what_was_confirmed(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1, RecordTypeId=NEW, StageName="Orbit Check"), opportunity(2, RecordTypeId=RENEWAL, StageName="Orbit Check")]
    definitions = stage_rows(("Orbit Check", 45, False, False))
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityStage=definitions, RecordType=None), now=NOON)
    stages.confirm(con, "sales", "default", "Orbit Check", "proposal", NOON)
    load(con, landed(tmp_path, 2, [], OpportunityStage=definitions, **TYPES), now=NOON + DAY)
    held = deals_of(con)
    assert [(held[opp_id(n)]["pipeline"], held[opp_id(n)]["stage"]) for n in (1, 2)] == [("New Business", "proposal"), ("Renewal", "proposal")]
    assert rows(con, "select distinct pipeline from core.stage_map order by 1") == [{"pipeline": "New Business"}, {"pipeline": "Renewal"}]


def test_a_relabelled_hubspot_pipeline_keeps_what_was_confirmed(con: Any, tmp_path: Path) -> None:
    odd = [("901", "Orbit", 0.5, False), ("902", "Won", 1.0, True)]
    load(con, inbound(tmp_path, 1, [deal(1, dealstage="901", pipeline="p2")], full=True, pipelines=[pipeline("p2", "Partner", odd)]), now=NOON)
    stages.confirm(con, "inbound", "Partner", "Orbit", "proposal", NOON)
    load(con, inbound(tmp_path, 2, [], pipelines=[pipeline("p2", "Alliances", odd)]), now=NOON + DAY)
    assert (deals_of(con)["1"]["pipeline"], deals_of(con)["1"]["stage"]) == ("Alliances", "proposal")
    assert one(con, "select count(*) as n from core.opportunity_version")["n"] == 1


# Stages as slowly changing facts ---------------------------------------------------------------------------------------------------


def changed(**of: dict[str, Any]) -> list[dict[str, Any]]:
    """The org's stages with some of them changed: by first word, in small letters."""
    return [row | of.get(row["MasterLabel"].split()[0].lower(), {}) for row in stage_rows()]


def past(con: Any, crm_stage: str) -> list[tuple[Any, ...]]:
    found = rows(
        con,
        "select valid_from, valid_to, label, position, probability, forecast_category, is_closed, is_won, is_active from core.stage_version "
        "where crm_stage = $1 order by valid_from",
        crm_stage,
    )
    return [tuple(row.values()) for row in found]


def test_what_the_org_says_of_a_stage_is_kept_over_time(con: Any, tmp_path: Path) -> None:
    made = NOON - 700 * DAY
    nights = [
        changed(needs={"CreatedDate": stamp(made)}),
        changed(needs={"CreatedDate": stamp(made)}),  # nothing moved
        changed(needs={"DefaultProbability": 30.0, "ForecastCategoryName": "Best Case", "MasterLabel": "Discovery"}),
        changed(needs={"IsActive": False, "MasterLabel": "Discovery"}),
        [row for row in stage_rows() if row["MasterLabel"] != "Needs Analysis"],  # deleted for good
        changed(needs={"SortOrder": 9}),  # and back
    ]
    for run, definitions in enumerate(nights):
        now = NOON + run * DAY
        deals = [opportunity(1)] if run == 0 else []
        load(con, landed(tmp_path, run, deals, full=run == 0, OpportunityStage=definitions), now=now)
    d = Decimal
    assert past(con, "Needs Analysis") == [
        (made, NOON + 2 * DAY, "Needs Analysis", 3, d("0.2"), "pipeline", False, False, True),
        (NOON + 2 * DAY, NOON + 3 * DAY, "Discovery", 3, d("0.3"), "best_case", False, False, True),
        (NOON + 3 * DAY, NOON + 5 * DAY, "Discovery", 3, d("0.2"), "pipeline", False, False, False),  # retired, then gone: still retired
        (NOON + 5 * DAY, None, "Needs Analysis", 9, d("0.2"), "pipeline", False, False, True),
    ]
    others = rows(con, "select distinct valid_from, valid_to from core.stage_version where crm_stage <> 'Needs Analysis'")
    assert others == [{"valid_from": NOON, "valid_to": None}]  # from the first sync on, as nobody says when they were made


def test_a_stage_that_changes_twice_at_one_instant_has_no_empty_version(con: Any, tmp_path: Path) -> None:
    for run, probability in enumerate([20.0, 30.0, 40.0]):
        pull = landed(tmp_path, run, [opportunity(1)], full=run == 0, OpportunityStage=changed(needs={"DefaultProbability": probability}))
        load(con, pull, now=NOON if run == 0 else NOON + DAY)
    assert [(a, b, p) for a, b, _, _, p, *_ in past(con, "Needs Analysis")] == [
        (NOON, NOON + DAY, Decimal("0.2")), (NOON + DAY, None, Decimal("0.4")),
    ]  # fmt: skip


def test_stages_of_hubspot_over_time(con: Any, tmp_path: Path) -> None:
    def one_stage(label: str, probability: float, **more: Any) -> list[dict[str, Any]]:
        found = pipeline(stages=[("901", label, probability, False)])
        found["stages"][0] |= more
        return [found]

    first = one_stage("Pitch", 0.4, createdAt="2025-01-01T00:00:00Z")
    load(con, inbound(tmp_path, 1, [deal(1, dealstage="901")], full=True, pipelines=first), now=NOON)
    load(con, inbound(tmp_path, 2, [], pipelines=one_stage("Pitch", 0.6)), now=NOON + DAY)
    load(con, inbound(tmp_path, 3, [], pipelines=one_stage("Pitch", 0.6)), now=NOON + 2 * DAY)
    load(con, inbound(tmp_path, 4, [], pipelines=[pipeline(stages=[("902", "Other", 0.1, False)])]), now=NOON + 3 * DAY)
    assert [(a, b, p, active) for a, b, _, _, p, _, _, _, active in past(con, "901")] == [
        (datetime(2025, 1, 1, tzinfo=UTC), NOON + DAY, Decimal("0.4"), True), (NOON + DAY, NOON + 3 * DAY, Decimal("0.6"), True),
        (NOON + 3 * DAY, None, Decimal("0.6"), False),
    ]  # fmt: skip


def test_records_that_hold_a_label_of_the_past_are_in_the_stage_that_had_it(con: Any, tmp_path: Path) -> None:
    """ApiName stays when an admin renames a stage; deals of before API names hold the label of that time."""
    api = {"ApiName": "Nego"}
    deals = [opportunity(1, StageName="Nego"), opportunity(2, StageName="Negotiation/Review")]
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityStage=changed(**{"negotiation/review": api})), now=NOON)
    renamed = changed(**{"negotiation/review": api | {"MasterLabel": "Verbal OK"}})
    late = opportunity(3, NOON + DAY, StageName="Negotiation/Review")
    load(con, landed(tmp_path, 2, [late], OpportunityStage=renamed), now=NOON + DAY)
    assert {(d["crm_stage_label"], d["stage"]) for d in deals_of(con).values()} == {("Verbal OK", "negotiation")}


def test_a_stage_that_becomes_a_closed_one_closes_its_deals(con: Any, tmp_path: Path) -> None:
    """An admin's change of a stage moves no deal's stamp, so the org does not deliver them again."""
    deals = [opportunity(1, StageName="Needs Analysis"), opportunity(2)]
    load(con, landed(tmp_path, 1, deals, full=True), now=NOON)
    closing = {"IsClosed": True, "IsWon": False, "SystemModstamp": stamp(NOON + DAY)}
    result = load(con, landed(tmp_path, 2, [], OpportunityStage=changed(needs=closing)), now=NOON + DAY)
    held = deals_of(con)
    assert (held[opp_id(1)]["stage"], held[opp_id(1)]["is_closed"], held[opp_id(2)]["is_closed"]) == ("closed_lost", True, False)
    assert counts(result, "Opportunity")[1] == 1
    reopened = opportunity(1, NOON + 2 * DAY, StageName="Needs Analysis", IsClosed=False)  # the record, stamped later, says otherwise
    load(con, landed(tmp_path, 3, [reopened], OpportunityStage=changed(needs=closing)), now=NOON + 2 * DAY)
    assert deals_of(con)[opp_id(1)]["is_closed"] is False


def test_a_deal_read_as_closed_before_its_stage_is_known_to_be_has_the_day_on_which_it_closed(con: Any, tmp_path: Path) -> None:
    """Deals and stages are read one after the other: what was read before a run was stopped is loaded without the rest."""
    entered, later = NOON - 5 * DAY, NOON - 2 * DAY
    history = {"OpportunityId": opp_id(1), "StageName": "Needs Analysis", "CloseDate": "2026-12-31", "CreatedDate": stamp(entered)}
    past = [{"Id": "008000000000001AAA", **history}, {"Id": "008000000000002AAA", **history, "StageName": "Prospecting", "CreatedDate": stamp(later)}]
    been = [{"Id": "008000000000003AAA", **history, "OpportunityId": opp_id(2)}]
    deals = [opportunity(1, StageName="Prospecting"), opportunity(2, StageName="Needs Analysis", IsClosed=True, IsWon=False)]
    load(con, landed(tmp_path, 1, deals, full=True, OpportunityHistory=[*past, *been]), now=NOON)
    assert deals_of(con)[opp_id(2)]["closed_at"] is None
    closing = {"IsClosed": True, "IsWon": False, "SystemModstamp": stamp(NOON + DAY)}
    load(con, landed(tmp_path, 2, [], OpportunityStage=changed(needs=closing)), now=NOON + DAY)
    assert deals_of(con)[opp_id(2)]["closed_at"] == entered
    kinds = rows(con, "select kind from core.stage_event where opportunity_key like '%' || $1 order by \"at\"", opp_id(1))
    assert [row["kind"] for row in kinds] == ["lost", "reopen"]  # a deal that was only once in it


# People, activities, products -----------------------------------------------------------------------------------------------------


def test_managers_and_people_who_leave(con: Any, tmp_path: Path) -> None:
    boss, chief = "005000000000003AAA", "005000000000004AAA"
    people = [user(ADA, "Ada Seller", ManagerId=boss), user(boss, "Cy Boss", ManagerId=chief), user(chief, "Di Chief")]
    load(con, landed(tmp_path, 1, [opportunity(1), opportunity(2, OwnerId=boss)], full=True, User=people), now=NOON)
    chain = rows(con, """
        with recursive up as (
            select owner_id, manager_id, 1 as steps from core.owner where name = 'Ada Seller'
            union all
            select o.owner_id, o.manager_id, u.steps + 1 from up u join core.owner o on o.owner_id = u.manager_id
        )
        select owner_id from up order by steps
    """)
    assert [row["owner_id"] for row in chain] == [ADA, boss, chief]
    gone = [user(ADA, "Ada Seller", ManagerId=chief, IsActive=False), *people[1:]]
    result = load(con, landed(tmp_path, 2, [], User=gone), now=NOON + DAY)
    assert {d["owner_id"]: d["owner_active"] for d in deals_of(con).values()} == {ADA: False, boss: True}
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)  # the deals are as they were; their owner is not
    assert one(con, "select manager_id from core.owner where owner_id = $1", ADA)["manager_id"] == chief


def task(number: int, what: str | None, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"00T{number:012d}AAA", "WhatId": what, "OwnerId": ADA, "Subject": "Call", "Status": "Not Started", "IsClosed": False,
        "ActivityDate": "2026-12-01", "CreatedDate": stamp(NOON), "SystemModstamp": stamp(at), "IsDeleted": False, "IsArchived": False,
        "IsRecurrence": False,
    } | fields  # fmt: skip


def event(number: int, what: str | None, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"00U{number:012d}AAA", "WhatId": what, "OwnerId": BO, "Subject": "Meet", "ActivityDate": "2026-11-18", "IsAllDayEvent": False,
        "StartDateTime": stamp(NOON - 2 * DAY), "EndDateTime": stamp(NOON - 2 * DAY + timedelta(hours=1)), "CreatedDate": stamp(NOON),
        "SystemModstamp": stamp(at), "IsDeleted": False, "IsArchived": False, "IsRecurrence": False, "IsChild": False,
    } | fields  # fmt: skip


def plans(con: Any) -> list[Any]:
    return [d["next_activity_at"] and d["next_activity_at"].date().isoformat() for _, d in sorted(deals_of(con).items())]


def test_a_task_that_moves_leaves_one_deal_and_comes_to_the_other(con: Any, tmp_path: Path) -> None:
    """The org delivers the task only; both deals must follow, also when it goes to an account or to nothing."""
    deals = [opportunity(1), opportunity(2), opportunity(3)]
    tasks = [task(1, opp_id(1)), task(2, opp_id(3), ActivityDate="2026-12-05"), task(3, "001000000000001AAA")]
    load(con, landed(tmp_path, 1, deals, full=True, Task=tasks), now=NOON)
    assert plans(con) == ["2026-11-30", None, "2026-12-04"]  # midnight in Berlin
    assert one(con, "select count(*) as n from raw.salesforce_task")["n"] == 2  # an account's own task is nobody's business here
    moved = [task(1, opp_id(2), NOON + DAY), task(2, "001000000000001AAA", NOON + DAY, ActivityDate="2026-12-05")]
    load(con, landed(tmp_path, 2, [], Task=moved), now=NOON + DAY)
    assert plans(con) == [None, "2026-11-30", None]
    assert rows(con, "select opportunity_key from core.activity") == [{"opportunity_key": f"sales:{opp_id(2)}"}]
    back = [task(2, opp_id(1), NOON + 2 * DAY, ActivityDate="2026-12-05"), task(1, None, NOON + 2 * DAY)]
    load(con, landed(tmp_path, 3, [], Task=back), now=NOON + 2 * DAY)
    assert plans(con) == ["2026-12-04", None, None]


def test_activities_archived_recurring_copied_and_deleted(con: Any, tmp_path: Path) -> None:
    held = NOON - 500 * DAY
    events = [
        event(1, opp_id(1), IsArchived=True, StartDateTime=stamp(held), EndDateTime=stamp(held), ActivityDate=None),
        event(2, opp_id(2)), event(3, opp_id(2), IsChild=True), event(4, opp_id(3), IsRecurrence=True),
        event(5, opp_id(4), IsDeleted=True),
    ]  # fmt: skip
    tasks = [task(1, opp_id(3), IsRecurrence=True, ActivityDate=None), task(2, opp_id(3), ActivityDate="2026-11-25")]
    load(con, landed(tmp_path, 1, [opportunity(n) for n in range(1, 5)], full=True, Event=events, Task=tasks), now=NOON)
    found = deals_of(con)
    assert found[opp_id(1)]["last_activity_at"] == held
    assert found[opp_id(2)]["last_activity_at"] == NOON - 2 * DAY + timedelta(hours=1)  # a colleague's meeting, not the owner's
    assert (found[opp_id(3)]["last_activity_at"], found[opp_id(4)]["last_activity_at"]) == (None, None)
    assert one(con, "select count(*) as n from core.activity where opportunity_key like '%2AAA'")["n"] == 1  # one meeting, one row
    assert rows(con, "select kind, due_date::varchar as due from core.activity where opportunity_key like '%3AAA'") == [
        {"kind": "task", "due": "2026-11-25"}
    ]
    gone = [event(1, opp_id(1), NOON + DAY, IsDeleted=True, IsArchived=True)]
    load(con, landed(tmp_path, 2, [], Event=gone), now=NOON + DAY)
    assert deals_of(con)[opp_id(1)]["last_activity_at"] is None


def test_a_contact_role_that_moves_counts_where_it_is(con: Any, tmp_path: Path) -> None:
    def role(deal_number: int, at: datetime) -> dict[str, Any]:
        return {"Id": "00K000000000001AAA", "OpportunityId": opp_id(deal_number), "ContactId": "003000000000001AAA", "Role": "Evaluator",
                "IsPrimary": True, "IsDeleted": False, "SystemModstamp": stamp(at)}  # fmt: skip

    load(con, landed(tmp_path, 1, [opportunity(1), opportunity(2)], full=True, OpportunityContactRole=[role(1, NOON)]), now=NOON)
    load(con, landed(tmp_path, 2, [], OpportunityContactRole=[role(2, NOON + DAY)]), now=NOON + DAY)
    assert [d["contact_count"] for _, d in sorted(deals_of(con).items())] == [0, 1]
    assert rows(con, "select opportunity_key, role from core.contact_role") == [{"opportunity_key": f"sales:{opp_id(2)}", "role": "Evaluator"}]


def test_deals_say_whether_products_are_attached(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1, HasOpportunityLineItem=True), opportunity(2, HasOpportunityLineItem=False)]
    load(con, landed(tmp_path, 1, deals, full=True), now=NOON)
    counted = [deal(n, hs_num_of_associated_line_items=told) for n, told in ((1, "2"), (2, None))]
    load(con, inbound(tmp_path, 1, counted, full=True), now=NOON)
    assert rows(con, "select source, has_line_items from bi.opportunity order by opportunity_key") == [
        {"source": "inbound", "has_line_items": True}, {"source": "inbound", "has_line_items": False},
        {"source": "sales", "has_line_items": True}, {"source": "sales", "has_line_items": False},
    ]  # fmt: skip
    load(con, inbound(tmp_path, 2, [deal(3)], full=True), now=NOON + DAY)  # a portal that does not list the property
    assert deals_of(con)["3"]["has_line_items"] is None


# Money and days -------------------------------------------------------------------------------------------------------------------


def rate(currency: str, units: float, since: str | None = None, until: str = "9999-12-31", **more: Any) -> dict[str, Any]:
    dated = {"StartDate": since, "NextStartDate": until} if since else {"IsActive": True, "IsCorporate": currency == "EUR"}
    return {"Id": f"{currency}{since}", "IsoCode": currency, "ConversionRate": units, **dated} | more


FLAT = [rate("EUR", 1.0), rate("USD", 1.25), rate("GBP", 0.8)]


def homes(con: Any) -> list[Any]:
    return [d["amount_home"] for _, d in sorted(deals_of(con).items())]


def test_a_rate_restates_the_deals_that_it_concerns_and_no_others(con: Any, tmp_path: Path) -> None:
    """Dated rates hold from StartDate to the day before NextStartDate, by close date; elsewhere the flat rate does."""
    days = ["2026-11-30", "2026-12-01", "2026-12-31", "2027-01-01"]
    deals = [opportunity(n, CurrencyIsoCode="USD", Amount=1000.0, CloseDate=day) for n, day in enumerate(days, 1)]
    deals += [opportunity(5, CurrencyIsoCode="GBP", Amount=1000.0), opportunity(6, Amount=1000.0)]
    load(con, landed(tmp_path, 1, deals, full=True, CurrencyType=FLAT, DatedConversionRate=[]), now=NOON)
    assert homes(con) == [800, 800, 800, 800, 1250, 1000]
    dated = [rate("USD", 2.0, "2026-12-01", "2027-01-01"), rate("USD", 4.0, "2027-01-01")]
    touched: list[str] = []
    night = landed(tmp_path, 2, [], CurrencyType=FLAT, DatedConversionRate=dated)

    def look(step: str) -> None:
        if step == "deals read":
            touched.extend(row["id"] for row in rows(con, "from touched order by id"))

    result = load(con, night, now=NOON + DAY, after_step=look)
    assert homes(con) == [800, 500, 500, 250, 1250, 1000]
    assert touched == [opp_id(n) for n in (2, 3, 4)]
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)  # no deal has changed
    assert one(con, "select count(*) as n from core.opportunity_version")["n"] == 6

    asleep = [FLAT[0], rate("USD", 1.25, IsActive=False), FLAT[2]]
    load(con, landed(tmp_path, 3, [], CurrencyType=asleep, DatedConversionRate=dated), now=NOON + 2 * DAY)
    assert homes(con) == [800, 500, 500, 250, 1250, 1000]  # no new deals in it, but those that are there keep their worth
    load(con, landed(tmp_path, 4, [], CurrencyType=asleep, DatedConversionRate=dated[:1]), now=NOON + 3 * DAY)
    assert homes(con) == [800, 500, 500, 800, 1250, 1000]


def test_an_org_of_one_currency(con: Any, tmp_path: Path) -> None:
    plain = {k: v for k, v in opportunity(1, Amount=70.0).items() if k != "CurrencyIsoCode"}
    load(con, landed(tmp_path, 1, [plain], full=True, CurrencyType=None, DatedConversionRate=None), now=NOON)
    held = deals_of(con)[opp_id(1)]
    assert (held["currency"], held["amount_home"], held["fx_rate"]) == ("EUR", 70, 1)


@pytest.mark.parametrize("configured", [None, "Europe/Berlin"])
def test_an_org_that_moves_to_another_zone_moves_the_day_where_nobody_configured_it(con: Any, tmp_path: Path, configured: str | None) -> None:
    def pull(run: int, zone: str, month: int) -> Path:
        made = SalesforcePull(tmp_path, run, full=True, org=ORG | {"timezone": zone, "fiscal_year_start_month": month})
        made.add("Opportunity", [opportunity(1)]).add("Task", [task(1, opp_id(1), ActivityDate="2026-11-19")]).add("Event", [])
        return made.add("User", USERS).done()

    late = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)  # the 20th in Berlin, still the 19th in New York
    business = {"timezone": configured}
    load(con, pull(1, "Europe/Berlin", 2), now=late, business=business)
    assert deals_of(con)[opp_id(1)]["next_activity_at"] is None  # due yesterday
    load(con, pull(2, "America/New_York", 4), now=late + timedelta(minutes=1), business=business)
    told = one(con, "select timezone, business_timezone, fiscal_year_start_month from core.source")
    assert (told["timezone"], told["fiscal_year_start_month"]) == ("America/New_York", 4)
    due = deals_of(con)[opp_id(1)]["next_activity_at"]
    if configured:
        assert (told["business_timezone"], due) == ("Europe/Berlin", None)
    else:
        assert (told["business_timezone"], due) == ("America/New_York", datetime(2026, 11, 19, 5, tzinfo=UTC))  # due today again


# Against a simulated org: read, land, load --------------------------------------------------------------------------------------------

NIGHT = datetime(2026, 11, 23, 2, tzinfo=UTC)
SPRING, SUMMER = "2027-04-01", "2027-07-01"


@pytest.fixture(scope="module")
def served() -> Any:
    clock = SimClock(NIGHT - 9 * DAY)
    clock.freeze()
    org = SalesforceOrg(None, clock, Faults())
    with org.serve() as server:
        yield org, server.url
    org.close()


class Night:
    """An org, the warehouse, and what happens between the nights. History and contacts are other tests' business."""

    def __init__(self, org: SalesforceOrg, url: str, con: Any, directory: Path) -> None:
        self.org, self.con, self.directory, self.run = org, con, directory, 0
        self.settings = SalesforceSettings(
            name="sales", crm="salesforce", instance_url=url, client_id="plumbline-demo", client_secret="demo-secret", quota_share=1
        )

    def sync(self, **business: Any) -> list[Any]:
        """A day later: pull what changed, load it. Gives the counts per object."""
        self.org.clock.advance(DAY)
        self.run += 1
        pull = extract.pull(
            self.settings, run_id=f"r{self.run}", landing=self.directory, since=ops.watermarks(self.con, "sales"),
            fields=known_fields(self.con, "sales"), client=Client(self.settings, RetryPolicy(base=0.01, cap=0.02)),
        )  # fmt: skip
        landed = self.directory / "sales" / pull.run_id
        counted = load(self.con, landed, now=self.org.now(), business=business)
        mark_loaded(landed)
        return counted

    def deal(self, name: str, **values: Any) -> str:
        account = self.org.create("Account", {"Name": "Acme"})
        standard = {"AccountId": account, "StageName": "Prospecting", "CloseDate": SPRING, "Amount": 1000, "CurrencyIsoCode": "EUR"}
        return self.org.create("Opportunity", {"Name": name} | standard | values)

    def held(self, column: str) -> dict[str, Any]:
        return {row["name"]: row[column] for row in rows(self.con, "from core.opportunity")}


@pytest.fixture
def night(served: Any, con: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    org, url = served
    others = {"OpportunityHistory", "OpportunityFieldHistory", "OpportunityContactRole", "Account", "UserRole"}
    monkeypatch.setattr(extract, "OBJECTS", [spec for spec in OBJECTS if spec.name not in others])
    org.reset()
    org.clock.set(NIGHT)
    yield Night(org, url, con, tmp_path)


def test_sales_processes_of_an_org_are_asked_for_when_they_moved(night: Night) -> None:
    org = night.org
    process = org.add_sales_process("Renewals", stages=["Prospecting", "Closed Won", "Closed Lost"])
    renewal = org.add_record_type("Renewal", sales_process=process)
    night.deal("one"), night.deal("two", RecordTypeId=renewal)
    asked = [next(c for c in night.sync() if c.object == "RecordType.stages").calls for _ in range(2)]
    assert asked == [2, 0]
    assert listed(night.con, "Renewal") == ["Prospecting", "Closed Won", "Closed Lost"]
    assert len(listed(night.con, "New Business")) == 10
    process_of = rows(night.con, "select pipeline, sales_process from core.pipeline order by pipeline")
    assert process_of[1] == {"pipeline": "Renewal", "sales_process": "Renewals"}

    stages.confirm(night.con, "sales", "Renewal", "Prospecting", "qualified", NIGHT)
    org.set_process_stages(process, ["Prospecting", "Negotiation/Review", "Closed Won", "Closed Lost"])
    org.rename_record_type(renewal, "Renewals & Upsell")
    assert next(c for c in night.sync() if c.object == "RecordType.stages").calls == 2
    assert listed(night.con, "Renewals & Upsell") == ["Prospecting", "Negotiation/Review", "Closed Won", "Closed Lost"]
    assert night.held("stage") == {"one": "prequalified", "two": "qualified"} and night.held("pipeline")["two"] == "Renewals & Upsell"
    night.org.clock.advance(7 * DAY)
    assert next(c for c in night.sync() if c.object == "RecordType.stages").calls == 2  # not every change is known to move a stamp


def test_an_org_that_refuses_to_tell_its_processes_shows_all_stages(night: Night) -> None:
    night.deal("one")
    night.org.add_record_type("Second"), night.org.add_record_type("Third")
    night.org.faults.arm("status", status=403, path="/ui-api/", times=9)
    night.org.hide_object("BusinessProcess")
    found = {c.object: c for c in night.sync()}
    assert found["RecordType.stages"].calls == 2 and "not told to this user" in found["RecordType.stages"].notice
    assert len(listed(night.con, "New Business")) == 10
    settings = one(night.con, "select derivation from core.source")["derivation"]
    night.sync()
    assert one(night.con, "select derivation from core.source")["derivation"] == settings  # asked or not, nothing is derived anew for it


def test_stages_users_and_closed_flags_of_an_org_follow_without_a_deal_moving(night: Night) -> None:
    org = night.org
    (boss,) = org.insert("User", [{"LastName": "Boss", "Username": "boss@acme.example", "IsActive": True, "UserType": "Standard"}])
    (ada,) = org.insert(
        "User", [{"LastName": "Ada", "Username": "ada@acme.example", "IsActive": True, "UserType": "Standard", "ManagerId": boss}]
    )
    night.deal("hers", OwnerId=ada), night.deal("stuck", StageName="Needs Analysis", OwnerId=boss)
    org.clock.advance(timedelta(hours=5))
    night.deal("late")  # whose stamp the next night reads from
    night.sync()
    org.update("User", ada, {"IsActive": False})
    org.change_stage("Prospecting", probability=15, master_label="New")
    org.change_stage("Needs Analysis", is_closed=True)
    fetched = next(c for c in night.sync() if c.object == "Opportunity").fetched
    assert fetched == 1  # the late one, again
    assert night.held("owner_active") == {"hers": False, "stuck": True, "late": True}
    assert night.held("is_closed") == {"hers": False, "stuck": True, "late": False} and night.held("stage")["stuck"] == "closed_lost"
    assert night.held("crm_stage_label")["hers"] == "New" and night.held("probability")["hers"] == Decimal("0.1")  # its own, as people left it
    assert one(night.con, "select manager_id from core.owner where owner_id = $1", ada)["manager_id"] == boss
    told = rows(night.con, "select label, probability, is_closed from core.stage_version where valid_from = $1 order by label", org.now())
    assert told == [
        {"label": "Needs Analysis", "probability": Decimal("0.2"), "is_closed": True},
        {"label": "New", "probability": Decimal("0.15"), "is_closed": False},
    ]


def test_a_queue_cannot_own_an_opportunity(night: Night) -> None:
    """Salesforce lets users own opportunities, nobody else: OwnerId refers to User alone."""
    owner = night.org.objects["Opportunity"].field("OwnerId")
    assert owner is not None and owner.reference_to == ["User"]


def test_activities_that_leave_a_deal_are_seen_by_the_next_night(night: Night) -> None:
    """An org delivers what belongs to deals; what was moved away from one must be asked for as well."""
    org = night.org
    one_deal, other = night.deal("one"), night.deal("other")
    account = org.create("Account", {"Name": "Elsewhere"})
    kinds = {"Task": {"ActivityDate": "2026-12-20"}, "Event": {"StartDateTime": NIGHT + 27 * DAY, "DurationInMinutes": 30}}
    moved = {kind: [org.create(kind, {"WhatId": one_deal, "Subject": "Call", **when}) for _ in range(2)] for kind, when in kinds.items()}
    for kind, when in kinds.items():
        org.create(kind, {"WhatId": account, "Subject": "Not about a deal", **when})
    night.sync()
    assert night.held("next_activity_at")["one"] and not night.held("next_activity_at")["other"]
    for kind, (first, second) in moved.items():
        org.update(kind, first, {"WhatId": account})
        org.update(kind, second, {"WhatId": other})
    found = {c.object: (c.inserted, c.changed) for c in night.sync()}
    assert (found["Task"], found["Event"]) == ((0, 2), (0, 2))
    assert not night.held("next_activity_at")["one"] and night.held("next_activity_at")["other"]
    assert rows(night.con, "select kind, opportunity_key from core.activity order by kind") == [
        {"kind": kind, "opportunity_key": f"sales:{other}"} for kind in ("event", "task")
    ]


def test_rates_and_the_zone_of_an_org_follow(night: Night) -> None:
    org = night.org
    for name, currency, day in (("home", "EUR", SPRING), ("early", "USD", SPRING), ("late", "USD", SUMMER)):
        night.deal(name, CurrencyIsoCode=currency, CloseDate=day)
    org.set_rate("USD", "1.25")
    night.sync()
    assert night.held("amount_home") == {"home": 1000, "early": 800, "late": 800}
    stamps = night.held("crm_modified_at")
    org.set_dated_rate("USD", date(2027, 5, 1), 2)
    org.set_dated_rate("USD", date(2027, 8, 1), 4)
    night.sync()
    assert night.held("amount_home") == {"home": 1000, "early": 800, "late": 500} and night.held("crm_modified_at") == stamps
    organization = org.rows('SELECT "Id" FROM "Organization"')[0][0]
    org.change_set_up("Organization", organization, {"TimeZoneSidKey": "Pacific/Auckland", "FiscalYearStartMonth": 4})
    night.sync(currency="USD")
    told = one(night.con, "select business_timezone, fiscal_year_start_month, home_currency from core.source")
    assert tuple(told.values()) == ("Pacific/Auckland", 4, "USD")
    assert night.held("amount_home") == {"home": 1250, "early": 1000, "late": 1000}
