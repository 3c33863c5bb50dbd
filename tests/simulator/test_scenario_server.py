"""The Simulator: both CRMs up, at the instant asked for, with the company in them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import requests

from connectors.simulator.scenario import planted, truth
from connectors.simulator.server import Simulator, serve_forever

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def amounts(con):
    """By deal: what the company tables say about deals that were neither deleted nor merged."""
    rows = con.execute(
        """select last(new order by seq)::decimal(18, 2) from company.deal_change join company.deal using (deal_id)
           where field = 'amount' and not is_deleted group by deal_id"""
    ).fetchall()
    return sorted((row[0] for row in rows), key=lambda x: (x is None, x))


def test_both_are_up_quickly_and_hold_the_company():
    started = time.monotonic()
    with Simulator(now=NOW, salesforce_deals=1200, hubspot_deals=800) as sim:
        assert time.monotonic() - started < 20
        assert timedelta(0) <= sim.clock.now() - NOW < timedelta(seconds=20)
        held = truth(sim)
        for crm in ("salesforce", "hubspot"):
            live = [deal.amount for deal in held[crm].values() if not deal.is_deleted]
            assert sorted(live, key=lambda x: (x is None, x)) == amounts(sim.companies[crm])
            defects = planted(sim)[crm]
            assert {"close_date_past", "no_recent_activity", "exit_closed_lost"} <= set(defects)
            assert all(deal in held[crm] and not held[crm][deal].is_deleted for ids in defects.values() for deal in ids)
        for url in (sim.salesforce_url, sim.hubspot_url):
            assert requests.get(f"{url}/__simulator__/clock", timeout=10).json()["now"].startswith("2026-11-24T08:00")
            assert requests.get(f"{url}/services/data/v67.0/query?q=x", timeout=10).status_code in (401, 404)
        urls = sim.salesforce_url, sim.hubspot_url
    for url in urls:
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=2)


@pytest.mark.parametrize("crm", ["salesforce", "hubspot"])
def test_a_directory_keeps_the_state(tmp_path, crm):
    with Simulator(tmp_path, now=NOW, salesforce_deals=60, hubspot_deals=60, crms=(crm,)) as sim:
        first = truth(sim)[crm]
        some = next(deal.id for deal in first.values() if not deal.is_deleted)
        if crm == "salesforce":
            sim.salesforce.update("Opportunity", some, {"Amount": 4711})
        else:
            sim.hubspot.update("deals", some, {"amount": 4711})
        kept = truth(sim)[crm]
    assert kept[some].amount == 4711
    with Simulator(tmp_path, now=NOW + timedelta(days=1), crms=(crm,)) as again:
        assert truth(again)[crm] == kept
        assert again.companies == {}


def test_only_what_is_asked_for_and_clear_words_before_it_runs():
    sim = Simulator(now=NOW, hubspot_deals=40, crms=("hubspot",))
    with pytest.raises(RuntimeError, match="not running"):
        _ = sim.hubspot
    with sim:
        assert sim.hubspot_url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="not running"):
            _ = sim.salesforce


def test_a_taken_port_stops_everything():
    with Simulator(now=NOW, hubspot_deals=40, crms=("hubspot",)) as first:
        second = Simulator(now=NOW, hubspot_deals=40, hubspot_port=first.servers["hubspot"].port, crms=("hubspot",))
        with pytest.raises(OSError):
            second.start()
        with pytest.raises(RuntimeError):
            _ = second.hubspot


def test_serve_forever_says_where_it_is(monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr("connectors.simulator.server.time", SimpleNamespace(sleep=interrupted))
    serve_forever(Simulator(now=NOW, hubspot_deals=40, crms=("hubspot",)), said.append)
    assert "http://127.0.0.1:" in said[0] and "demo-token" in said[0] and said[-1] == "Stopping."
