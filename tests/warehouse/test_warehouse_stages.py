"""The canonical stage map: suggestions, who decides, and restating what was there before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from warehouse_land import (
    NOON,
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
    sales,
    stage_rows,
    stamp,
)

from warehouse import stages
from warehouse.load import load
from warehouse.stages import StageRow, normalise, suggestions_for

DAY = timedelta(days=1)


def row(label: str, position: int | None = 1, probability: float | None = None, **more: Any) -> StageRow:
    return StageRow("s", "p", str(more.get("id", label)), label, position, probability, None, False, False, True)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("3 - Proposal/Price Quote", "proposal price quote"), ("S2: Qualified", "qualified"), ("04_Verhandlung", "verhandlung"),
        ("Qualifié (25%)", "qualifie"), ("Møde booket", "mode booket"), ("A. Prospecting", "prospecting"), ("Stage 0", "stage 0"),
        ("  Closed  Won ", "closed won"), ("2nd Meeting Set", "2nd meeting set"), ("商务谈判", "商务谈判"), ("90% Commit", "commit"),
    ],
)  # fmt: skip
def test_labels_are_compared_as_plain_words(label: str, words: str) -> None:
    assert normalise(label) == words


@pytest.mark.parametrize(
    ("label", "stage", "confidence"),
    [
        ("Verbal", "negotiation", 0.9), ("Security Review", "negotiation", 0.9), ("Angebot versendet", "proposal", 0.9),
        ("Sales Qualified Lead (SQL)", "qualified", 0.9), ("Demo Scheduled", "prequalified", 0.9), ("Demo", "discovery", 0.9),
        ("Proposal Requested", "discovery", 0.9), ("Proposal Drafting", "discovery", 0.9), ("Proposal Sent", "proposal", 0.9),
        ("On Hold", "on_hold", 0.9), ("交渉中", "negotiation", 0.9), ("Unqualified", "closed_lost", 0.6),
        ("Contract Signed", "negotiation", 0.9),
        ("Orbit Check", None, 0.0), ("Renewed", None, 0.0), ("Bidder list", None, 0.0),
    ],
)  # fmt: skip
def test_what_a_name_suggests(label: str, stage: str | None, confidence: float) -> None:
    found = suggestions_for("salesforce", [row(label, None)])[0]
    assert (found.stage, found.confidence) == (stage, confidence), found.reason


def test_defaults_are_certain_and_ids_are_no_evidence() -> None:
    assert suggestions_for("hubspot", [row("Appointment Scheduled", id="appointmentscheduled")])[0].confidence == 1
    renamed = suggestions_for("hubspot", [row("Angebot erstellt", id="appointmentscheduled")])[0]
    assert (renamed.stage, renamed.confidence) == ("proposal", 0.9)


def test_a_name_that_stands_in_the_wrong_place_must_be_confirmed() -> None:
    found = suggestions_for("salesforce", [row("Review", 1, 0.1), row("Steering", 2, 0.95)])
    assert (found[0].stage, found[0].confidence) == ("negotiation", 0.6)
    assert "stands where prequalified would" in found[0].reason
    assert (found[1].stage, found[1].confidence, found[1].reason) == ("negotiation", 0.4, "by its place and probability only")


def test_ranks_that_fall_along_the_pipeline_are_doubted_on_both_sides() -> None:
    found = suggestions_for("salesforce", [row("Discovery", 1), row("Offer out", 2), row("Scoping", 3), row("Contract", 4)])
    assert [s.confidence for s in found] == [0.9, 0.6, 0.6, 0.9]
    assert found[1].reason.endswith("out of order with 'Scoping'")
    assert found[2].reason.endswith("out of order with 'Offer out'")


def test_every_phrase_of_the_file_is_normalised_and_leads_to_one_stage() -> None:
    document = yaml.safe_load((stages.HERE / "synonyms.yaml").read_text(encoding="utf-8"))
    seen: dict[str, str] = {}
    for stage, phrases in document["phrases"].items():
        assert stage in stages.RANKS
        for phrase in phrases:
            assert seen.setdefault(normalise(phrase), stage) == stage, phrase
    for phrase, stage in seen.items():  # each finds its own stage again
        found = suggestions_for("salesforce", [row(phrase, None)])[0]
        assert found.stage == stage, (phrase, found)


STRANGE = ("Orbit Check", 45, False, False)


def test_an_unknown_stage_is_unmapped_counted_and_stops_nothing(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1, StageName="Orbit Check", Amount=700.0), opportunity(2, StageName="Orbit Check", IsClosed=True, Amount=5.0),
             opportunity(3)]  # fmt: skip
    load(con, sales(tmp_path, 1, deals, full=True, OpportunityStage=stage_rows(STRANGE)), now=NOON)
    found = deals_of(con)
    assert [found[opp_id(n)]["stage"] for n in (1, 2, 3)] == ["unmapped", "closed_lost", "qualified"]
    first = stages.suggest(con)[0]
    assert (first["crm_stage"], first["stage"], first["suggestion"]) == ("Orbit Check", "unmapped", "discovery")
    assert first["confidence"] < stages.SURE
    assert (first["deals"], first["open_deals"], first["amount_home"]) == (2, 1, 700)
    listed = [row["crm_stage"] for row in stages.list_stages(con, "sales")]
    assert listed[:3] == ["Prospecting", "Qualification", "Needs Analysis"]
    assert listed[-1] == "Orbit Check"
    assert stages.list_stages(con, "elsewhere") == []


def test_a_stage_made_tonight_is_there_tonight(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    pull = sales(tmp_path, 2, [opportunity(1, NOON + DAY, StageName="Verbal")], OpportunityStage=stage_rows(("Verbal", 85, False, False)))
    load(con, pull, now=NOON + DAY)
    assert deals_of(con)[opp_id(1)]["stage"] == "negotiation"
    gone = opportunity(1, NOON + 2 * DAY, StageName="Nobody Defines This")
    load(con, sales(tmp_path, 3, [gone]), now=NOON + 2 * DAY)
    assert deals_of(con)[opp_id(1)]["stage"] == "unmapped"
    retired = one(con, "select is_active, origin from core.stage_map where crm_stage = 'Verbal'")
    assert retired["is_active"] is False


def test_confirming_restates_deals_moves_and_versions_but_is_no_change_of_the_deals(con: Any, tmp_path: Path) -> None:
    told = [history(1, 1, NOON - 9 * DAY, "Qualification"), history(1, 2, NOON - 2 * DAY, "Orbit Check")]
    definitions = stage_rows(STRANGE)
    deals = [opportunity(1, StageName="Orbit Check"), opportunity(2)]
    pull = sales(tmp_path, 1, deals, full=True, OpportunityHistory=told, OpportunityStage=definitions)
    load(con, pull, now=NOON)
    assert one(con, "select kind from core.stage_event where to_crm_stage = 'Orbit Check'")["kind"] == "move"
    before = deals_of(con)[opp_id(1)]
    result = stages.confirm(con, "sales", "*", "orbit check", "discovery", NOON + DAY)
    assert result == {"source": "sales", "crm_stage": "orbit check", "stage": "discovery", "pipelines": ["default"], "deals": 1}
    after = deals_of(con)[opp_id(1)]
    assert {name for name in after if after[name] != before[name]} == {"stage", "stage_rank"}
    assert (after["stage"], after["stage_rank"]) == ("discovery", 2)
    assert one(con, "select from_stage, to_stage, kind from core.stage_event where to_crm_stage = 'Orbit Check'") == {
        "from_stage": "qualified", "to_stage": "discovery", "kind": "advance",
    }  # fmt: skip
    assert one(con, "select stage from core.opportunity_version where crm_stage = 'Orbit Check'")["stage"] == "discovery"
    assert not stages.refresh_stage_map(con, "sales", {}, NOON + DAY)  # what was confirmed stays
    result = load(con, sales(tmp_path, 2, [deals[0]], OpportunityStage=definitions), now=NOON + 2 * DAY)
    assert counts(result, "Opportunity") == (0, 0, 1, 0, 0)
    assert deals_of(con)[opp_id(1)]["stage"] == "discovery"
    versions = rows(con, "select valid_from, stage from core.opportunity_version where opportunity_key like '%1AAA' order by 1")
    assert versions == [{"valid_from": NOON - 30 * DAY, "stage": "qualified"}, {"valid_from": NOON - 2 * DAY, "stage": "discovery"}]


def test_the_configuration_decides_by_label_id_and_pipeline(con: Any, tmp_path: Path) -> None:
    other = pipeline("p2", "Partner", [("901", "Pitch", 0.5, False), ("902", "Won", 1.0, True)])
    deals = [deal(1, dealstage="901", pipeline="p2"), deal(2), deal(3, dealstage="902", pipeline="p2", hs_is_closed="true")]
    load(con, inbound(tmp_path, 1, deals, full=True, pipelines=[pipeline(), other]), now=NOON)

    def mapped(config: dict[str, dict[str, str]]) -> list[str]:
        stages.refresh_stage_map(con, "inbound", config, NOON)
        return [d["stage"] for _, d in sorted(deals_of(con).items())]

    assert mapped({}) == ["unmapped", "qualified", "closed_lost"]  # a place and a probability are not enough
    assert mapped({"*": {"pitch": "proposal", "Qualified To Buy": "prequalified"}}) == ["proposal", "prequalified", "closed_lost"]
    assert mapped({"*": {"901": "proposal"}, "p2": {"Pitch": "negotiation"}}) == ["negotiation", "qualified", "closed_lost"]
    assert mapped({"partner": {"901": "on_hold"}}) == ["on_hold", "qualified", "closed_lost"]
    assert deals_of(con)["1"]["stage_rank"] is None
    # The CRM's own flags win: an open stage is never a closed one, a closed stage never an open one.
    assert mapped({"*": {"Pitch": "closed_won", "Won": "proposal"}}) == ["unmapped", "qualified", "closed_lost"]
    with pytest.raises(ValueError, match=r"'negotiating' is no canonical stage. Use one of: prequalified"):
        mapped({"*": {"Pitch": "negotiating"}})


def test_confirming_says_no_in_words(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON, stages={"*": {"Needs Analysis": "qualified"}})
    for stage, to, words in [
        ("Nowhere", "proposal", r"sales has no stage 'Nowhere' in any pipeline. It has: Closed Lost, Closed Won"),
        ("Closed Won", "proposal", "is a closed stage in the CRM"),
        ("Needs Analysis", "discovery", r"mapped to qualified by the configuration. Change it there: \[sources.sales.stages\]"),
        ("Qualification", "closed_won", "is an open stage in the CRM"),
        ("Qualification", "qualifying", "is no canonical stage"),
    ]:
        with pytest.raises(ValueError, match=words):
            stages.confirm(con, "sales", "*", stage, to, NOON)
    with pytest.raises(ValueError, match=r"no stage 'Qualification' in 'Renewals'\. It has: none"):
        stages.confirm(con, "sales", "Renewals", "Qualification", "qualified", NOON)


def test_a_deal_that_changed_its_pipeline_keeps_its_past(con: Any, tmp_path: Path) -> None:
    """HubSpot's stage ids are unique over pipelines; the old stage is not one of the new pipeline."""
    from warehouse_land import past

    other = pipeline("p2", "Partner", [("901", "Proposal", 0.5, False)])
    told = past(1, dealstage=[(NOON - 9 * DAY, "qualifiedtobuy"), (NOON - DAY, "901")])
    moved = deal(1, dealstage="901", pipeline="p2")
    load(con, inbound(tmp_path, 1, [moved], full=True, history=[told], pipelines=[pipeline(), other]), now=NOON)
    moves = rows(con, 'select from_stage, to_stage, kind from core.stage_event order by "at"')
    assert [tuple(m.values()) for m in moves] == [(None, "qualified", "enter"), ("qualified", "proposal", "skip")]
    assert rows(con, "from core.stage_map where pipeline = 'Partner' and crm_stage = 'qualifiedtobuy'") == []


def test_a_relabelled_stage_shows_its_new_label_everywhere(con: Any, tmp_path: Path) -> None:
    load(con, inbound(tmp_path, 1, [deal(1)], full=True), now=NOON)
    renamed = pipeline(stages=[("qualifiedtobuy", "Angebot versendet", 0.4, False), ("closedlost", "Closed Lost", 0.0, True)])
    result = load(con, inbound(tmp_path, 2, [], pipelines=[renamed]), now=NOON + DAY)
    found = deals_of(con)["1"]
    assert (found["crm_stage_label"], found["stage"]) == ("Angebot versendet", "proposal")
    assert counts(result, "deals") == (0, 0, 0, 0, 0)


def test_records_that_hold_the_label_instead_of_the_api_name(con: Any, tmp_path: Path) -> None:
    definitions = [{**s, "ApiName": "Nego"} if s["MasterLabel"] == "Negotiation/Review" else s for s in stage_rows()]
    deals = [opportunity(1, StageName="Nego"), opportunity(2, StageName="Negotiation/Review", LastStageChangeDate=stamp(NOON))]
    load(con, sales(tmp_path, 1, deals, full=True, OpportunityStage=definitions), now=NOON)
    assert {d["stage"] for d in deals_of(con).values()} == {"negotiation"}
    assert {d["crm_stage_label"] for d in deals_of(con).values()} == {"Negotiation/Review"}
