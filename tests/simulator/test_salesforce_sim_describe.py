"""Describes: the shape of the recorded ones, with the org's own fields, stages and record types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from salesforce_sim_help import World, world

from connectors.simulator.salesforce.catalogue import RECORDED


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        yield w


def fields(w: World, sobject: str) -> dict[str, dict[str, Any]]:
    return {f["name"]: f for f in getattr(w.sf, sobject).describe()["fields"]}


def test_every_object_describes_itself_in_the_recorded_shape(w: World) -> None:
    keys = set(orjson.loads((RECORDED / "defaults.json").read_bytes()))
    head = set(orjson.loads((RECORDED / "Opportunity.json").read_bytes())["object"])
    listed = w.sf.describe()["sobjects"]
    assert {o["name"] for o in listed} >= {"Organization", "Opportunity", "OpportunityFieldHistory", "Plumbline_Snapshot__c"}
    for entry in listed:
        described = getattr(w.sf, entry["name"]).describe()
        assert set(described) == head | {"actionOverrides", "childRelationships", "fields", "namedLayoutInfos", "urls"}
        for f in described["fields"]:
            assert set(f) == keys, f"{entry['name']}.{f['name']}"
            assert f["label"] and (not f["referenceTo"] or f["type"] == "reference")
        names = [f["name"] for f in described["fields"]]
        assert len(names) == len(set(names)) and "Id" in names


def test_recorded_fields_are_as_recorded(w: World) -> None:
    source = orjson.loads((RECORDED / "Opportunity.json").read_bytes())
    shown = fields(w, "Opportunity")
    for recorded in source["fields"]:
        name = recorded["name"]
        for key in recorded.keys() - {"picklistValues"}:
            assert shown[name][key] == recorded[key], f"{name}.{key}"
    assert shown["Amount"]["precision"] == 18 and shown["Amount"]["scale"] == 2 and shown["IsWon"]["updateable"] is False


def test_what_a_query_takes_is_what_the_describe_lists(w: World) -> None:
    for entry in w.sf.describe()["sobjects"]:
        names = [f["name"] for f in getattr(w.sf, entry["name"]).describe()["fields"]]
        where = " WHERE DurableId = 'Account.Name'" if entry["name"] == "FieldDefinition" else ""  # which is not to be read whole
        soql = f"SELECT {', '.join(names)} FROM {entry['name']}{where}"
        assert w.raw.get(f"{w.data}/query/", params={"q": soql}).status_code == 200, entry


def test_custom_fields_formulas_and_new_ones(w: World) -> None:
    shown = fields(w, "Opportunity")
    assert shown["Weighted_Amount__c"]["calculated"] and shown["Weighted_Amount__c"]["calculatedFormula"] == "Amount * Probability / 100"
    assert not shown["Weighted_Amount__c"]["updateable"]
    assert shown["Plumbline_Score__c"] | {"precision": 3, "scale": 0, "custom": True, "updateable": True} == shown["Plumbline_Score__c"]
    assert "Tier__c" not in shown
    w.org.add_field("Opportunity", "Tier__c", "picklist", "Tier", picklist=["Gold", "Silver"])
    tier = fields(w, "Opportunity")["Tier__c"]
    assert [v["value"] for v in tier["picklistValues"]] == ["Gold", "Silver"] and tier["label"] == "Tier"
    with pytest.raises(ValueError, match="already a field named"):
        w.org.add_field("Opportunity", "tier__c", "string")


def test_stages_and_record_types_show_in_the_describe(w: World) -> None:
    w.org.add_stage("Legal", probability=85, forecast_category="Forecast")
    described = w.sf.Opportunity.describe()
    stage = next(f for f in described["fields"] if f["name"] == "StageName")
    assert [v["value"] for v in stage["picklistValues"]][-1] == "Legal" and len(stage["picklistValues"]) == 11
    assert [r["developerName"] for r in described["recordTypeInfos"]] == ["New_Business", "Master"]
    row = w.records("SELECT ApiName, ForecastCategoryName, DefaultProbability, IsClosed FROM OpportunityStage WHERE MasterLabel = 'Legal'")
    assert row == [{"ApiName": "Legal", "ForecastCategoryName": "Commit", "DefaultProbability": 85.0, "IsClosed": False}]


def test_a_hidden_object_is_not_there(w: World) -> None:
    w.org.hide_object("Event")
    try:
        assert "Event" not in [o["name"] for o in w.sf.describe()["sobjects"]]
        assert w.raw.get(f"{w.data}/sobjects/Event/describe").status_code == 404
        refused = w.raw.get(f"{w.data}/query/", params={"q": "SELECT Id FROM Event"})
        assert refused.json()[0]["errorCode"] == "INVALID_TYPE"
    finally:
        w.org.hide_object("Event", hidden=False)
