"""A changed day leaves in each CRM what its sentences say, with the traces that the real ones leave."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from connectors.simulator.scenario import changed_day, truth
from connectors.simulator.server import Simulator

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
DEALS = 300


@pytest.fixture(scope="module", params=["salesforce", "hubspot"])
def day(request):
    with Simulator(now=NOW, salesforce_deals=DEALS, hubspot_deals=DEALS, crms=(request.param,)) as sim:
        before = truth(sim)[request.param]
        told = changed_day(sim)
        yield request.param, sim, before, truth(sim)[request.param], told


def test_the_day_is_told_in_plain_sentences(day):
    told = day[-1]
    assert len(told) >= 14
    assert all(line.endswith(".") and "{" not in line and "None" not in line for line in told)
    for word in ("won", "lost", "deleted", "merged", "left the company", "new deals", "formula", "stage called"):
        assert any(word in line for line in told), word


def test_time_passes_within_the_working_day(day):
    _, sim, *_ = day
    assert NOW < sim.clock.now() < datetime(2026, 11, 24, 17, 0, tzinfo=UTC)


def test_truth_shows_what_changed(day):
    crm, _, before, after, _ = day
    assert len(set(after) - set(before)) >= 4  # new deals
    assert len(set(before) - set(after)) == 1  # purged
    both = set(before) & set(after)
    assert sum(after[i].is_deleted and not before[i].is_deleted for i in both) >= 3
    assert sum(before[i].is_deleted and not after[i].is_deleted for i in both) == 1
    assert sum(before[i].stage != after[i].stage for i in both) >= 10
    assert sum(before[i].amount != after[i].amount for i in both) >= 4
    merged = [after[i] for i in both if after[i].merged_into and not before[i].merged_into]
    assert len(merged) == (2 if crm == "hubspot" else 0)
    assert all(deal.merged_into in after and deal.is_deleted for deal in merged)
    assert not any(stage == "" for stage in (deal.stage for deal in after.values()))


def test_a_second_day_can_follow(day):
    crm, sim, _, first, _ = day
    sim.clock.set(datetime(2026, 11, 25, 8, 0, tzinfo=UTC))
    assert len(changed_day(sim)) >= 12
    assert truth(sim)[crm] != first
