"""The budget of API calls that one run has for one source."""

import threading

import pytest

from connectors.errors import CrmQuotaError
from connectors.limits import Budget


def test_the_share_is_never_exceeded_by_threads_that_all_call_at_once():
    budget = Budget("sales", 0.05)
    budget.observe(0, 1000)
    refused = []

    def work():
        for _ in range(20):
            try:
                budget.spend("Opportunity")
            except CrmQuotaError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.total == 50 and len(refused) == 110


def test_an_answer_that_was_overtaken_does_not_lower_the_count():
    budget = Budget("sales", 1.0)
    first, second = budget.spend("Opportunity"), budget.spend("Opportunity")
    budget.observe(102, 1000, second)
    assert budget.daily_used == 102
    budget.observe(101, 1000, first)  # counted before the other, told after it
    assert budget.daily_used == 102
    third = budget.spend("Opportunity")
    assert budget.daily_used == 103
    budget.observe(90, 1000, third)  # asked for afterwards: the CRM's day has moved on
    assert budget.daily_used == 90


def test_calls_that_left_after_a_question_are_added_to_its_answer():
    budget = Budget("sales", 1.0)
    first = budget.spend("Opportunity")
    for _ in range(4):
        budget.spend("Opportunity")
    budget.observe(995, 1000, first)  # as the org counted when four others were on their way
    assert budget.remaining == 1
    budget.spend("Opportunity")
    with pytest.raises(CrmQuotaError, match="all 1000 API calls of the day are used"):
        budget.spend("Opportunity")


def test_a_share_is_counted_as_it_is_written():
    budget = Budget("sales", 0.29)
    budget.observe(0, 100)
    assert budget.remaining == 29
    assert budget.usage() == {"calls": 0, "calls_by_object": {}, "daily_used": 0, "daily_limit": 100}
