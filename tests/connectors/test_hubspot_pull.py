"""Pulls from a simulated portal: after each one, what the landed files say is what the portal holds."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hubspot_landing import Believed, lines, manifest

from connectors import hubspot
from connectors.errors import CrmAuthError, CrmPermissionError, CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.hubspot import client as client_module
from connectors.hubspot import deals as deals_module
from connectors.hubspot.pulling import reached
from connectors.hubspot.settings import HubSpotSettings
from connectors.landing import Pull, mark_loaded
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.hubspot import HubSpotPortal

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
OWNED = ("dealname", "amount", "dealstage", "pipeline", "hubspot_owner_id", "closedate", "hs_next_step", "hs_lastmodifieddate")


class Night:
    """A portal, its server, and a warehouse that believes what is pulled."""

    def __init__(self, tmp_path: Path, furnished: Path, **settings: Any) -> None:
        shutil.copy(furnished, tmp_path / "portal.duckdb")
        self.clock, self.faults = SimClock(NOW), Faults()
        self.clock.freeze()
        self.portal = HubSpotPortal(tmp_path / "portal.duckdb", self.clock, self.faults)
        self.portal.limits.lift()
        self.app = self.portal.app()
        self.server = serve(self.app)
        self.landing, self.known = tmp_path / "landing", tmp_path / "known.ndjson"
        given = {"name": "inbound", "crm": "hubspot", "base_url": self.server.url, "access_token": "demo-token", "overlap_minutes": 15}
        self.settings = HubSpotSettings(**{**given, **settings})
        self.believed, self.number = Believed(), 0

    def pull(self, *, full: bool = False, known: bool = True) -> Pull:
        """One pull, taken in when it succeeds."""
        self.number += 1
        self.app.state.requests.clear()
        pulled = hubspot.pull(
            self.settings, run_id=f"run-{self.number}", landing=self.landing, since=dict(self.believed.watermarks), full=full,
            known=self.believed.write_known(self.known) if known else None,
        )
        self.believed.take(self.directory)
        mark_loaded(self.directory)
        return pulled

    @property
    def directory(self) -> Path:
        return self.landing / "inbound" / f"run-{self.number}"

    def living(self) -> list[str]:
        """The live deals."""
        rows = self.portal.rows("select _id from object_deals where _archived_at is null and _merged_into is null order by _id")
        return [str(row[0]) for row in rows]

    def in_bin(self) -> list[str]:
        rows = self.portal.rows("select _id from object_deals where _archived_at is not null and _merged_into is null order by _id")
        return [str(row[0]) for row in rows]

    def landed(self, obj: str = "deals") -> list[str]:
        return [line["id"] for line in lines(self.directory, obj)]

    def calls(self) -> dict[str, int]:
        return dict(self.app.state.requests.counts)

    def next_day(self) -> None:
        self.clock.advance(timedelta(days=1))

    def deals(self, number: int, **more: Any) -> list[str]:
        """New deals of this instant. Many are made as rows, because one by one takes long."""
        first = self.portal.create("deals", {"dealname": "Deal", "amount": "1000", "dealstage": "qualifiedtobuy", **more})
        if number > 5:
            self.portal.rows(
                f"""insert into object_deals by name
                    select o.* replace (_id + 1000000 + n as _id, (1000 + n)::varchar as amount)
                    from object_deals o, range(1, {number}) r(n) where _id = {first}"""
            )
            return [first, *(str(int(first) + 1000000 + n) for n in range(1, number))]
        return [first, *(self.portal.create("deals", {"dealname": f"Deal {n}", "amount": str(n), **more}) for n in range(1, number))]

    def last_deal(self) -> str:
        """A deal some hours later than the others, so that the overlap holds it alone."""
        self.clock.advance(timedelta(hours=3))
        return self.deals(1)[0]

    def truth(self, names: tuple[str, ...]) -> dict[str, dict[str, str | None]]:
        """The properties of all deals, as the API words them."""
        catalogue = self.portal.catalogue
        deals = catalogue.types["deals"]
        texts = ", ".join(catalogue.text(deals, deals.properties[name], self.clock.now()) for name in names)
        rows = self.portal.rows(f"select _id, {texts} from object_deals")
        return {str(key): dict(zip(names, values, strict=True)) for key, *values in rows}

    def check(self, *, links: bool = True) -> None:
        """Everything that is believed is so."""
        rows = self.portal.rows("select _id, _archived_at, _merged_into from object_deals")
        live = {str(key) for key, archived, merged in rows if archived is None and merged is None}
        assert self.believed.live.keys() == live
        assert {str(key) for key, archived, merged in rows if archived and not merged} <= self.believed.deleted.keys()
        into = {str(key): str(merged) for key, _, merged in rows if merged}
        for loser in into:
            survivor = loser
            while survivor in into:
                survivor = into[survivor]
            assert survivor not in live or self.believed.survivor(loser) == survivor
        for key, truth in self.truth(OWNED).items():
            assert not (believed := self.believed.live.get(key)) or truth == {name: believed.get(name) for name in OWNED}, key
        if not links:
            return
        linked = self.portal.rows("select from_id, to_type, to_id, type_id from association where from_type = 'deals' and not hidden")
        for key in live:
            if self.believed.live[key].get("hs_is_closed") == "true":
                continue  # people change the contacts of open deals; those of closed ones are read with their next change
            assert self.believed.contacts[key] == {str(to) for deal, kind, to, _ in linked if str(deal) == key and kind == "contacts"}
            primary = [str(to) for deal, kind, to, number in linked if str(deal) == key and kind == "companies" and number == 5]
            assert self.believed.company[key] == (primary[0] if primary else None)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches need no pace here, nobody is waited for, and nothing has to outlive a power cut."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr(client_module, "SEARCHES_PER_SECOND", 10_000)
    monkeypatch.setattr(client_module, "PER_10S", 100_000)
    monkeypatch.setattr(client_module, "POLICY", RetryPolicy(tries=8, sleep=lambda seconds: None))


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portal without deals, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("portal") / "furnished.duckdb"
    HubSpotPortal(path, SimClock(NOW), Faults()).close()
    return path


@pytest.fixture
def nights(tmp_path: Path, furnished: Path) -> Iterator[Callable[..., Night]]:
    made: list[Night] = []

    def make(**settings: Any) -> Night:
        made.append(Night(tmp_path, furnished, **settings))
        return made[-1]

    yield make
    for night in made:
        night.server.stop()
        night.portal.close()


@pytest.fixture
def night(nights: Callable[..., Night]) -> Night:
    return nights()


# What lands -----------------------------------------------------------------------------------------------------------


def test_first_sync_lands_the_whole_portal(night: Night) -> None:
    owner = night.portal.add_owner("ann@acme.test", "Ann", "Berg", team=("12", "North"))
    night.portal.deactivate_owner(night.portal.add_owner("bob@acme.test", "Bob", "Carr"))
    company = night.portal.create("companies", {"name": "Acme", "industry": "SOFTWARE", "numberofemployees": "12"})
    contact = night.portal.create("contacts", {"email": "kim@acme.test"})
    links = [("contacts", contact), ("companies", company, "Primary")]
    deal = night.portal.create("deals", {"dealname": "First", "amount": "100", "hubspot_owner_id": owner}, links)
    others = night.deals(120)
    night.portal.archive("deals", others[0])
    night.clock.advance(timedelta(hours=1))
    night.portal.update("deals", deal, {"amount": "250.50"})

    pulled = night.pull()

    night.check()
    assert pulled.full and pulled.objects == [
        "account", "owners", "pipelines", "properties", "exchange_rates", "deals", "deals.archived", "deals.gone", "deals.history",
        "deals.associations", "companies", "companies.archived", "companies.gone",
    ]
    assert pulled.org == {
        "org_id": "146210337", "timezone": "Europe/Berlin", "currency": "EUR",
        "record_url": "https://app-eu1.hubspot.com/contacts/146210337/record/0-3/{id}",
    }
    assert pulled.calls == sum(night.calls().values())
    first = next(line for line in lines(night.directory, "deals") if line["id"] == deal)
    assert first["properties"]["amount"] == "250.50"
    assert all(value is None or isinstance(value, str) for value in first["properties"].values())
    assert "propertiesWithHistory" not in first
    past = night.believed.history[deal]
    assert [version["value"] for version in past["amount"]] == ["250.50", "100"]
    assert past.keys() >= {"dealstage", "closedate", "hs_next_step", "hubspot_owner_id", "pipeline"}
    assert night.believed.history.keys() == {deal, *others}  # archived ones have a past too
    assert [line["archived"] for line in lines(night.directory, "owners")] == [False, True]
    stages = [stage["id"] for line in lines(night.directory, "pipelines") for stage in line["stages"]]
    assert "qualifiedtobuy" in stages
    assert [line["properties"]["name"] for line in lines(night.directory, "companies")] == ["Acme"]

    deals = manifest(night.directory, "deals")
    assert deals["complete"] and deals["mode"] == "full" and deals["cursor"] == "hs_lastmodifieddate"
    assert night.believed.watermarks["deals"] == night.clock.now()
    fields = {field["name"]: field for field in deals["fields"]}
    assert fields["plumbline_status"]["custom"] and not fields["amount"]["custom"]
    assert fields["weighted_amount"]["calculated"] and "hs_v2_date_entered_current_stage" in first["properties"]  # not listed, yet there
    assert set(first["properties"]) >= {"weighted_amount", "hs_v2_date_entered_current_stage", "plumbline_score"}


def test_a_night_without_changes_asks_little_and_lands_its_overlap(night: Night) -> None:
    night.deals(210)
    last = night.last_deal()
    newest = night.clock.now()
    night.pull()
    night.next_day()
    pulled = night.pull()
    night.check()
    assert not pulled.full and night.landed() == [last]
    # account, 2 x owners, pipelines, properties, archived, search, batch read, search again, count, 2 x associations, search of companies,
    # archived companies
    assert pulled.calls == 15
    assert night.believed.watermarks["deals"] == newest


def test_an_empty_portal(night: Night) -> None:
    night.pull()
    assert "deals" not in night.believed.watermarks
    night.next_day()
    night.deals(3)
    night.pull()
    night.check()


def test_an_unfinished_pull_is_recognised(night: Night) -> None:
    night.deals(3)
    night.faults.arm("drop", after=6, times=99)
    with pytest.raises(CrmUnavailableError):
        night.pull()
    assert not (night.directory / "pull.json").exists()
    assert not (night.directory / "deals" / "manifest.json").exists()


# What changes ---------------------------------------------------------------------------------------------------------


def test_a_changed_day(night: Night) -> None:
    company = night.portal.create("companies", {"name": "Acme"})
    night.clock.advance(timedelta(hours=1))
    other = night.portal.create("companies", {"name": "Other"})
    contact = night.portal.create("contacts", {"email": "kim@acme.test"})
    keys = night.deals(30)
    night.portal.associate("deals", keys[1], "contacts", contact)
    night.portal.associate("deals", keys[1], "companies", company, "Primary")
    night.portal.archive("deals", keys[2])
    night.portal.archive("deals", keys[3])
    last = night.last_deal()
    night.pull()
    night.next_day()

    night.portal.update("deals", keys[0], {"amount": None, "dealstage": "closedwon"})
    night.portal.dissociate("deals", keys[1], "contacts", contact)
    night.portal.associate("deals", keys[1], "companies", other, "Primary")
    night.portal.associate("deals", keys[4], "contacts", contact)
    night.portal.restore("deals", keys[2])
    night.portal.restore("deals", keys[3])
    night.portal.update("deals", keys[3], {"amount": "7"})
    night.portal.archive("deals", keys[5])
    night.portal.update("deals", keys[6], {"amount": "8"})
    night.portal.archive("deals", keys[6])
    night.portal.purge("deals", keys[7])
    night.portal.merge("deals", keys[8], keys[9])
    night.portal.add_property("deals", "budget_holder", "string", "text", "Budget holder")
    night.portal.update("deals", keys[10], {"budget_holder": "Kim"})
    stage = night.portal.add_stage("default", "Security review", 0.5)
    night.portal.update("deals", keys[11], {"dealstage": stage})
    night.portal.update("companies", company, {"name": "Acme Ltd"})
    new = night.deals(2)

    night.pull()

    night.check()
    assert set(night.landed()) == {keys[n] for n in (0, 2, 3, 8, 10, 11)} | {last, *new}
    assert night.landed("deals.gone") == [keys[7]]
    assert night.believed.live[keys[10]]["budget_holder"] == "Kim"
    assert "budget_holder" in {field["name"] for field in manifest(night.directory, "deals")["fields"]}
    assert night.believed.history[keys[0]]["amount"][0]["value"] == ""
    assert night.believed.history[keys[6]]["amount"][0]["value"] == "8"  # archived on the day it changed
    assert [line["properties"]["name"] for line in lines(night.directory, "companies")] == ["Acme Ltd", "Other"]

    changed = set(night.landed())
    night.next_day()
    night.pull()
    night.check()
    assert set(night.landed()) <= changed  # the overlap
    assert night.landed("deals.gone") == []


def test_a_merge_that_makes_a_new_record_retires_both(night: Night) -> None:
    keys = night.deals(3)
    night.pull()
    night.next_day()
    night.portal.merge_makes_new_record = True
    survivor = night.portal.merge("deals", keys[0], keys[1])
    night.pull()
    night.check()
    assert survivor not in keys
    assert night.believed.merged_into == {keys[0]: survivor, keys[1]: survivor}
    assert night.landed("deals.gone") == []


def test_a_full_pull_misses_what_is_gone(night: Night) -> None:
    keys = night.deals(5)
    night.pull()
    night.portal.purge("deals", keys[0])
    night.pull(full=True)
    night.check()
    assert keys[0] in night.believed.deleted


def test_gone_deals_are_found_among_many_by_counting(night: Night) -> None:
    night.deals(1500)
    night.last_deal()
    night.pull()
    night.next_day()
    ids = sorted(night.believed.live)
    gone = {ids[17], ids[1200]}
    for key in gone:
        night.portal.purge("deals", key)
    night.pull()
    assert set(night.landed("deals.gone")) == gone
    night.check()
    searches = night.calls()["POST /crm/v3/objects/{object_type}/search"]
    assert searches <= 2 + 11  # of 15 calls to read every id; 100,000 deals would be 1,000 calls, or 23 searches


def test_most_deals_vanishing_at_once_is_not_believed(night: Night) -> None:
    night.deals(300)
    night.pull()
    night.next_day()
    night.portal.rows("delete from object_deals where _id % 3 <> 0")
    with pytest.raises(CrmPermissionError, match="--full"):
        night.pull()
    night.pull(full=True)
    night.check()


def test_deals_deleted_long_ago_are_not_asked_for_any_more(night: Night) -> None:
    keys = night.deals(2)
    night.portal.archive("deals", keys[0])
    night.last_deal()
    night.pull()
    night.portal.purge("deals", keys[0])
    night.next_day()
    batch_read = "POST /crm/v3/objects/{object_type}/batch/read"
    for deleted_at, asked in ((None, 1), ("2026-11-01T00:00:00+00:00", 1), ("2026-06-01T00:00:00+00:00", 0)):
        known = night.believed.write_known(night.known, deleted_at=deleted_at)
        night.app.state.requests.clear()
        night.number += 1
        since = night.believed.watermarks
        hubspot.pull(night.settings, run_id=f"run-{night.number}", landing=night.landing, since=since, known=known)
        mark_loaded(night.directory)
        assert night.calls()[batch_read] == 1 + asked, deleted_at  # one for the overlap


# Stamps ---------------------------------------------------------------------------------------------------------------


def _one_stamp(night: Night, number: int, searches: int) -> None:
    night.deals(1)
    night.pull()
    night.next_day()
    night.deals(number)
    night.clock.advance(timedelta(minutes=10))
    night.pull(known=False)  # which would say that listing all of them takes fewer calls
    assert len(night.landed()) == len(set(night.landed())) == number + 1
    assert night.calls()["POST /crm/v3/objects/{object_type}/search"] == searches + 1  # and once more for what the index did not have yet
    night.check(links=False)


def test_more_changes_on_one_stamp_than_search_can_page(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.simulator.hubspot.search.CAP", 100)
    monkeypatch.setattr("connectors.hubspot.reading.SEARCH_PAGE", 20)
    _one_stamp(night, 330, searches=17)


@pytest.mark.slow
def test_twelve_thousand_changes_on_one_stamp(night: Night) -> None:
    """More than a search has results. Each call takes ids above the last one's, so nothing is asked twice: 12,001 deals are 61 searches of 200,
    241 reads of 50 with their history, and 13 reads of 1,000 for each of contacts and companies. What is left is a handful, whatever the number."""
    _one_stamp(night, 12_000, searches=61)
    assert sum(night.calls().values()) <= 61 + 241 + 2 * 13 + 15


@pytest.mark.slow
def test_more_changes_than_a_search_can_page_spread_over_a_day(night: Night) -> None:
    """11,000 of 12,000 deals edited in four hours of a day, many in the same millisecond: all come, each as it stands."""
    night.deals(12_000)
    night.last_deal()
    night.pull()
    night.next_day()
    for hour in range(4):
        night.clock.advance(timedelta(hours=2))
        at = night.clock.now().isoformat()
        night.portal.rows(
            f"""update object_deals set amount = (_id % 1000)::varchar, _updated_at = timestamptz '{at}' - to_milliseconds(_id % 7)
                where _id in (select _id from object_deals order by _id limit 2750 offset {2750 * hour})"""
        )
    night.clock.advance(timedelta(hours=2))
    night.pull()
    assert 11_000 <= len(night.landed()) == len(set(night.landed()))
    assert sum(night.calls().values()) <= 11_000 / 200 + 11_000 / 50 + 60
    night.check(links=False)


def test_what_search_has_not_noticed_yet_comes_the_night_after(night: Night) -> None:
    keys = night.deals(5)
    night.last_deal()
    night.pull()
    night.next_day()
    night.portal.index_lag = 600
    night.portal.update("deals", keys[0], {"amount": "1"})
    night.clock.advance(timedelta(seconds=30))
    night.portal.archive("deals", keys[1])
    new = night.deals(1)
    night.portal.index_lag = 0
    night.pull()
    assert keys[1] in night.believed.deleted  # the listing of archived deals does not lag
    assert keys[0] not in night.landed() and new[0] not in night.landed()
    night.next_day()
    night.pull()
    night.check()


def test_a_change_that_is_visible_late_is_within_the_overlap(night: Night) -> None:
    keys = night.deals(5)
    night.last_deal()
    night.pull()
    night.next_day()
    night.faults.arm("late_commit", seconds=300)
    night.portal.update("deals", keys[0], {"amount": "1"})
    night.clock.advance(timedelta(seconds=60))
    night.portal.update("deals", keys[1], {"amount": "2"})
    night.pull()
    assert keys[0] not in night.landed() and keys[1] in night.landed()
    night.clock.advance(timedelta(seconds=600))
    night.pull()
    night.check()


def test_the_watermark_is_never_later_than_the_portals_clock_or_its_newest_stamp() -> None:
    early, late = NOW, NOW + timedelta(hours=2)
    assert reached(None, late, early) == early  # a clock that is fast
    assert reached(None, early, late) == early  # records that changed while we read
    assert reached(None, late, None) is None  # nothing there, nothing promised
    assert reached(early, late, None) == early
    assert reached(late, late, early) == late  # only the overlap was seen again
    assert reached(None, None, early) == early


def test_everything_comes_when_the_portal_moves_while_it_is_read(night: Night) -> None:
    """A deal archived or restored between two calls is what it is after one more pull at the latest."""
    keys = night.deals(160)
    night.portal.archive("deals", keys[0])
    night.portal.archive("deals", keys[150])
    moves = [
        lambda: night.portal.restore("deals", keys[0]), lambda: night.portal.archive("deals", keys[1]),
        lambda: night.portal.restore("deals", keys[150]), lambda: night.portal.archive("deals", keys[155]),
        lambda: night.portal.update("deals", keys[2], {"amount": "5"}), lambda: night.deals(1),
    ]
    original = client_module.Client._send

    def send(self: Any, *args: Any) -> Any:
        answer = original(self, *args)
        if "/objects/deals" in args[1] and moves:
            night.clock.advance(timedelta(seconds=1))
            moves.pop(0)()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module.Client, "_send", send)
        night.pull()
    assert not moves
    night.clock.advance(timedelta(minutes=1))
    night.pull()
    night.check()


def test_labels_of_contacts(night: Night) -> None:
    (key,) = night.deals(1)
    kim, ole = (night.portal.create("contacts", {"email": f"{name}@acme.test"}) for name in ("kim", "ole"))
    night.portal.associate("deals", key, "contacts", kim, "Decision maker")
    night.portal.associate("deals", key, "contacts", ole)

    def landed() -> dict[str, list[str]]:
        (line,) = [line for line in lines(night.directory, "deals.associations") if line["id"] == key]
        return {one["id"]: one["labels"] for one in line["contacts"]}

    night.pull()
    assert landed() == {kim: ["Decision maker"], ole: []}
    night.next_day()
    night.portal.associate("deals", key, "contacts", ole, "Champion")
    night.portal.associate("deals", key, "contacts", kim, "Budget holder")
    night.pull()
    assert landed() == {kim: ["Budget holder", "Decision maker"], ole: ["Champion"]}
    night.check()


# Wide portals ---------------------------------------------------------------------------------------------------------


def _wide(night: Night, properties: int) -> None:
    last = f"custom_property_number_{properties - 1:04d}"
    for number in range(properties):
        night.portal.add_property("deals", f"custom_property_number_{number:04d}", "string", "text", f"Custom {number}")
    contact = night.portal.create("contacts", {"email": "kim@acme.test"})
    keys = night.deals(120, **{last: "last"})
    night.portal.associate("deals", keys[0], "contacts", contact)
    night.portal.archive("deals", keys[1])
    night.last_deal()
    night.pull()
    night.check()
    assert all(night.believed.live[key][last] == "last" for key in keys if key in night.believed.live)
    assert night.believed.history.keys() >= set(keys)
    night.next_day()
    night.portal.update("deals", keys[2], {"custom_property_number_0000": "first"})
    night.pull()
    night.check()
    assert keys[2] in night.landed() and len(night.landed()) == 2


def test_more_properties_than_an_address_can_name(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.hubspot.reading.URL_ROOM", 1000)
    _wide(night, 3)
    assert max(len(call.path) for call in night.app.state.requests.calls) < 1000


@pytest.mark.slow
def test_a_thousand_properties(night: Night) -> None:
    """The portal refuses addresses of more than 8 KB; names that have no room there travel in the bodies of batch reads."""
    _wide(night, 1000)
    assert 414 not in night.app.state.requests.statuses


# Trouble --------------------------------------------------------------------------------------------------------------

TROUBLE: dict[str, dict[str, Any]] = {
    "429": {"kind": "status", "status": 429, "times": 3, "after": 4},
    "429 with Retry-After": {"kind": "status", "status": 429, "times": 3, "after": 4, "headers": {"Retry-After": "1"}},
    "503": {"kind": "status", "status": 503, "times": 4, "after": 5},
    "dropped": {"kind": "drop", "times": 3, "after": 6},
    "truncated": {"kind": "truncate", "times": 3, "after": 7},
    "401": {"kind": "status", "status": 401, "times": 1, "after": 6},
    "searches": {"kind": "status", "status": 500, "times": 2, "path": "/search"},
    "batches": {"kind": "truncate", "times": 2, "path": "/batch/read"},
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_on_the_way_loses_nothing(night: Night, trouble: str) -> None:
    keys = night.deals(130)
    last = night.last_deal()
    night.faults.arm(**TROUBLE[trouble])
    pulled = night.pull()
    night.check()
    night.next_day()
    for key in keys[:60]:
        night.portal.update("deals", key, {"amount": "1"})
    night.portal.purge("deals", keys[70])
    night.faults.clear()
    night.faults.arm(**TROUBLE[trouble])
    pulled = night.pull()
    night.check()
    assert pulled.calls == sum(night.calls().values())
    assert len(night.landed()) == len({last, *night.landed()}) == 61


def test_oauth_tokens_that_expire_in_the_middle(nights: Callable[..., Night]) -> None:
    night = nights(access_token=None, client_id="plumbline-demo", client_secret="demo-secret", refresh_token="demo-refresh-token")
    night.portal.access.access_token = None
    night.deals(60)
    night.pull()
    night.check()
    night.next_day()  # the token of yesterday is over, and a new client begins anew
    for key in list(night.believed.live)[:55]:
        night.portal.update("deals", key, {"amount": "3"})
    original = client_module.Client._send
    calls: list[str] = []

    def send(self: Any, *args: Any) -> Any:
        calls.append(args[1])
        if len(calls) in (4, 9):
            night.faults.arm("expire_tokens")
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module.Client, "_send", send)
        night.pull()
    night.check()
    assert sum("/oauth/" in path for path in calls) == 3


def test_a_wrong_token(nights: Callable[..., Night]) -> None:
    night = nights(access_token="pat-wrong")
    with pytest.raises(CrmAuthError):
        night.pull()
    assert sum(night.calls().values()) == 1


@pytest.mark.parametrize(
    ("scope", "obj"),
    [("crm.objects.deals.read", "deals"), ("crm.objects.owners.read", "owners"), ("crm.objects.companies.read", "companies")],
)
def test_a_missing_scope(night: Night, scope: str, obj: str) -> None:
    company = night.portal.create("companies", {"name": "Acme"})
    key = night.deals(1)[0]
    night.portal.associate("deals", key, "companies", company)
    night.portal.access.scopes.discard(scope)
    if obj == "deals":
        with pytest.raises(CrmPermissionError, match=scope.replace(".", r"\.")):
            night.pull()
        return
    night.pull()
    assert night.landed() == [key]
    assert night.landed(obj) == []
    notice = manifest(night.directory, obj)["notice"]
    assert scope in notice and not manifest(night.directory, obj)["complete"]


# Writing back -----------------------------------------------------------------------------------------------------------


def test_what_is_written_comes_back_with_the_next_pull(night: Night, tmp_path: Path) -> None:
    keys = night.deals(120)
    night.pull()
    night.next_day()
    night.portal.purge("deals", keys[3])
    changes, results = tmp_path / "changes.ndjson", tmp_path / "results.ndjson"
    fields: dict[str, dict[str, Any]] = {key: {"plumbline_status": "at_risk", "plumbline_score": 55} for key in keys}
    fields[keys[5]]["plumbline_status"] = "no such option"
    fields[keys[110]] = {"plumbline_status": "clean", "plumbline_flagged_since": "2026-11-23", "plumbline_top_issue": "Überfällig"}
    changes.write_text("".join(json.dumps({"id": key, "fields": value}) + "\n" for key, value in fields.items()))
    written = hubspot.write(night.settings, changes=changes, results=results)
    answered = {line["id"]: line for line in map(json.loads, results.read_text().splitlines())}
    assert (written.written, written.failed) == (118, 2)
    assert answered.keys() == set(keys)
    assert answered[keys[5]]["code"] == "INVALID_OPTION" and answered[keys[3]]["code"] == "OBJECT_NOT_FOUND"

    changes.write_text(json.dumps({"id": keys[0], "fields": {"plumbline_status": None}}))
    assert hubspot.write(night.settings, changes=changes, results=tmp_path / "more.ndjson").written == 1
    night.pull()
    night.check()
    assert set(night.landed()) == set(keys) - {keys[3]}
    assert night.believed.live[keys[0]]["plumbline_status"] is None
    assert night.believed.live[keys[1]]["plumbline_status"] == "at_risk" and night.believed.live[keys[1]]["plumbline_score"] == "55"
    assert night.believed.live[keys[110]]["plumbline_flagged_since"] == "2026-11-23"


def test_dated_paths(nights: Callable[..., Night]) -> None:
    night = nights(api_version="2026-09")
    keys = night.deals(60)
    night.pull()
    night.next_day()
    night.portal.update("deals", keys[0], {"amount": "1"})
    night.portal.archive("deals", keys[1])
    night.pull()
    night.check()
    assert not [call.path for call in night.app.state.requests.calls if "/v3/" in call.path or "/v4/" in call.path]


# Any order of anything ------------------------------------------------------------------------------------------------


def _live(night: Night) -> list[str]:
    rows = night.portal.rows("select _id from object_deals where _archived_at is null and _merged_into is null order by 1")
    return [str(row[0]) for row in rows]


def _anything(night: Night, dice: random.Random, contacts: list[str], companies: list[str]) -> None:
    """One thing that people do to a portal."""
    portal, live = night.portal, _live(night)
    archived = [str(row[0]) for row in portal.rows("select _id from object_deals where _archived_at is not null order by 1")]
    key = dice.choice(live) if live else None
    what = dice.randrange(11)
    if key is None or what == 0:
        night.deals(dice.randrange(1, 4))
    elif what in (1, 2, 3):
        portal.update("deals", key, {"amount": str(dice.randrange(9999)), "hs_next_step": dice.choice(["call", "", "sign"])})
    elif what == 4:
        portal.update("deals", key, {"dealstage": dice.choice(["closedwon", "closedlost", "contractsent", "qualifiedtobuy"])})
    elif what == 5:
        portal.archive("deals", key)
    elif what == 6 and archived:
        portal.restore("deals", dice.choice(archived))
    elif what == 7 and len(live) > 3:
        portal.merge_makes_new_record = dice.random() < 0.5
        portal.merge("deals", *dice.sample(live, 2))
    elif what == 8 and len(live) > 3:
        portal.purge("deals", dice.choice(live + archived))
    elif what == 9:
        other = dice.choice([("contacts", dice.choice(contacts)), ("companies", dice.choice(companies), "Primary")])
        portal.associate("deals", key, *other)
    else:
        kind, others = dice.choice([("contacts", contacts), ("companies", companies)])
        portal.dissociate("deals", key, kind, dice.choice(others))


def _schedule(night: Night, seed: int) -> None:
    dice = random.Random(seed)
    contacts = [night.portal.create("contacts", {"email": f"c{n}@acme.test"}) for n in range(4)]
    companies = [night.portal.create("companies", {"name": f"Company {n}"}) for n in range(3)]
    night.deals(12)
    for _ in range(5):
        for _ in range(dice.randrange(12)):
            night.clock.advance(timedelta(seconds=dice.choice([0, 0, 0.001, 1, 7200])))
            _anything(night, dice, contacts, companies)
        night.pull(full=dice.random() < 0.1)
        night.check()
        night.clock.advance(timedelta(hours=dice.choice([0, 1, 24])))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_anything(night: Night, seed: int) -> None:
    _schedule(night, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_any_order_of_anything_at_length(night: Night, seed: int) -> None:
    _schedule(night, seed)


def test_companies_that_go_and_come_back_move_no_stamp_and_are_noticed(night: Night) -> None:
    kept, archived, purged, restored, loser = (night.portal.create("companies", {"name": name}) for name in "kaprl")
    night.portal.archive("companies", restored)
    night.deals(1)
    night.clock.advance(timedelta(hours=1))
    night.pull()
    assert set(night.landed("companies")) == {kept, archived, purged, loser} and night.landed("companies.archived") == [restored]
    night.next_day()
    night.portal.archive("companies", archived)
    night.portal.purge("companies", purged)
    night.portal.restore("companies", restored)
    night.portal.merge("companies", kept, loser)
    known = night.believed.write_known(night.known)
    with known.open("a") as out:
        for key in (kept, archived, purged, restored, loser):
            out.write(json.dumps({"object": "companies", "id": key, "is_deleted": key == restored}) + "\n")
    night.number += 1
    hubspot.pull(night.settings, run_id=f"run-{night.number}", landing=night.landing, since=night.believed.watermarks, known=known)
    read = {line["id"]: line["properties"] for line in lines(night.directory, "companies")}
    assert {kept, restored} <= read.keys() and read[kept]["hs_merged_object_ids"] == loser
    assert night.landed("companies.archived") == [archived]
    assert [line["id"] for line in lines(night.directory, "companies.gone")] == [purged]


# Few calls, and processes that die ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9: nothing that comes after it is done."""


def busy_hour(night: Night, keys: list[str], number: int) -> None:
    """What people do between two attempts, some of it without a stamp."""
    night.clock.advance(timedelta(hours=1))
    live = [key for key in keys if key in night.living()]
    night.portal.update("deals", live[number % len(live)], {"amount": str(5000 + number)})
    night.portal.archive("deals", live[(3 * number + 1) % len(live)])
    if number % 3 == 0:
        night.portal.purge("deals", live[(5 * number + 2) % len(live)])
    if number % 3 == 1:
        night.portal.merge("deals", live[(7 * number + 3) % len(live)], live[(7 * number + 9) % len(live)])
    binned = night.in_bin()
    if binned and number % 2:
        night.portal.restore("deals", binned[number % len(binned)])
    night.portal.associate("deals", live[(2 * number + 4) % len(live)], "contacts", night.portal.create("contacts", {"email": f"{number}@acme.test"}))
    night.deals(1)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages, each with a journal of its own."""
    for name in ("PAGE", "PAGE_WITH_HISTORY"):
        monkeypatch.setattr(f"connectors.hubspot.reading.{name}", 10)
    monkeypatch.setattr("connectors.hubspot.deals.PAGE_WITH_HISTORY", 10)
    monkeypatch.setattr("connectors.hubspot.spool.EVERY", 1)


@pytest.mark.parametrize("full", [False, True], ids=["first sync", "sync --full"])
def test_days_of_few_calls_end_where_one_of_many_does(night: Night, narrow: None, *, full: bool) -> None:
    keys = night.deals(120)
    if full:
        night.pull()
    stops = 0
    while True:
        night.faults.arm("daily_limit", after=18)
        pulled = night.pull(full=full)
        night.faults.clear()
        if pulled.stopped is None:
            break
        stops += 1
        again = "sync --full" if full else "run"
        assert pulled.stopped.splitlines()[0].endswith(f"; what was read is kept, the next {again} goes on from there")
        assert pulled.unread[0] in ("deals", "companies") and stops < 12
        busy_hour(night, keys, stops)
    assert stops > 1
    night.check()
    assert sum(night.calls().values()) <= 18


def test_a_day_of_few_calls_goes_on_with_the_changes_of_the_last(night: Night, narrow: None) -> None:
    keys = night.deals(200)
    night.pull()
    night.next_day()
    for key in keys[:90]:
        night.portal.update("deals", key, {"amount": "77"})
    stops = 0
    while True:
        night.faults.arm("daily_limit", after=22)
        pulled = night.pull()
        night.faults.clear()
        if pulled.stopped is None:
            break
        stops += 1
        assert stops < 12
        busy_hour(night, keys, stops)
    assert stops > 1 and not pulled.full
    night.check()


@pytest.mark.parametrize("changed", [0, 60], ids=["first sync", "changes"])
def test_killed_at_any_page_nothing_is_missed_and_no_page_is_read_twice(
    night: Night, narrow: None, monkeypatch: pytest.MonkeyPatch, changed: int
) -> None:
    keys = night.deals(100)
    if changed:
        night.pull()
        night.next_day()
        for key in keys[:changed]:
            night.portal.update("deals", key, {"amount": "77"})
    monkeypatch.setattr("connectors.hubspot.spool.Spool.__exit__", lambda self, kind, error, trace: None)  # a process that dies writes nothing
    read = deals_module.Deals._keep
    pages = {"read": 0, "until": 2}

    def dying(self: Any, *args: Any) -> None:
        if pages["read"] == pages["until"]:
            raise Killed
        pages["read"] += 1
        read(self, *args)

    monkeypatch.setattr(deals_module.Deals, "_keep", dying)
    deaths = 0
    while True:
        try:
            night.pull()
            break
        except Killed:
            deaths += 1
            pages["until"] += 2
            busy_hour(night, keys, deaths)
            assert deaths < 12
    night.check()
    assert deaths > 2
    assert pages["read"] <= 11  # every page once, by whichever process


def test_most_deals_changed_so_all_are_listed_and_none_is_taken_for_deleted(night: Night) -> None:
    keys = night.deals(500)
    night.pull()
    night.next_day()
    night.portal.rows("update object_deals set _updated_at = ?", [night.clock.now().replace(tzinfo=None)])
    assert night.pull().objects and manifest(night.directory, "deals")["complete"]
    night.check()
    assert len(keys) == len(night.landed())
    night.next_day()
    night.portal.rows("update object_deals set _updated_at = ?", [night.clock.now().replace(tzinfo=None)])
    night.portal.rows("delete from object_deals where _id % 3 > 0")
    with pytest.raises(CrmPermissionError, match="deals can no longer be seen, as if they were deleted for good"):
        night.pull()


def test_what_the_index_did_not_know_yet_is_asked_for_again_at_the_end(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = night.deals(30)
    night.pull()
    night.next_day()
    night.portal.update("deals", keys[3], {"amount": "1"})
    night.portal.update("deals", keys[4], {"amount": "2"})
    found = deals_module.changed
    searches = []

    def behind(*args: Any, **more: Any) -> Iterator[list[dict[str, Any]]]:
        searches.append(args)
        for page in found(*args, **more):
            yield [record for record in page if len(searches) > 1 or record["id"] != keys[3]]

    monkeypatch.setattr(deals_module, "changed", behind)
    night.pull()
    night.check()
    assert len(searches) == 2 and {keys[3], keys[4]} <= set(night.landed())
