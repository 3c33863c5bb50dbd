"""The verdict of a rule on a deal, as SQL: one definition for Great Expectations' counts and for the findings.

A rule is four SQL expressions over the table `subject` (sql/subject_table.sql), the kwargs of its expectation:

    applies_when     boolean; anything but TRUE: the rule does not apply to this deal
    unknown_because  text; not NULL: the deal cannot be judged, and why
    fails_when       boolean; TRUE fails, FALSE passes, NULL: the deal cannot be judged
    waived_when      boolean; TRUE: the failure is an agreed exception
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

KWARGS = ("applies_when", "unknown_because", "fails_when", "waived_when")
VERDICTS = ("na", "unknown", "pass", "waived", "fail")
NULL_REASON = "a field that the rule compares is empty or was not read"

# Four counts in one sum, nine decimal digits each (room for 999,999,999 deals): a rule's conditions are evaluated once per
# deal, which is a quarter of the time that four filtered counts take. 10^36 fits DuckDB's HUGEINT.
_DIGITS = 10**9


class Tally(NamedTuple):
    """Deals by verdict; those that the rule does not apply to are not counted."""

    unknown: int
    passed: int
    waived: int
    failed: int

    @property
    def applicable(self) -> int:
        return sum(self)

    @property
    def evaluable(self) -> int:
        return self.applicable - self.unknown


def _decide(kwargs: Mapping[str, str], *, na: str, unknown: str, passed: str, waived: str, failed: str) -> str:
    applies, unknown_because, fails, waives = (kwargs[name] for name in KWARGS)
    return (
        f"case when ({applies}) is not true then {na}"
        f" when ({unknown_because}) is not null or ({fails}) is null then {unknown}"
        f" when not ({fails}) then {passed}"
        f" when ({waives}) is true then {waived}"
        f" else {failed} end"
    )


def verdict(kwargs: Mapping[str, str]) -> str:
    """SQL text expression: one of VERDICTS."""
    return _decide(kwargs, na="'na'", unknown="'unknown'", passed="'pass'", waived="'waived'", failed="'fail'")


def reason(kwargs: Mapping[str, str]) -> str:
    """SQL text expression: why a deal whose verdict is 'unknown' cannot be judged."""
    return f"coalesce(({kwargs['unknown_because']}), '{NULL_REASON}')"


def tally_sql(kwargs: Mapping[str, str]) -> str:
    """SQL aggregate over the subject, one HUGEINT that `tally` takes apart. Every count of an empty table is zero."""
    ones = {name: str(_DIGITS**i) for i, name in enumerate(Tally._fields)}
    return f"coalesce(sum({_decide(kwargs, na='0', **ones)}), 0)"


def tally(packed: int) -> Tally:
    return Tally(*(int(packed) // _DIGITS**i % _DIGITS for i in range(len(Tally._fields))))
