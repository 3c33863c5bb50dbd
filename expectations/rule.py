"""What a rule is once its suite file and the settings have been read and every expression in it has been bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPECTATION_TYPE = "expect_opportunities_to_pass"

# Gravest first. The points are what a failure takes off a deal's score of 100 (score.sql).
SEVERITIES = ("critical", "high", "medium", "low", "info")
POINTS = {"critical": 30, "high": 15, "medium": 8, "low": 3, "info": 0}
# Great Expectations knows three severities; `get_max_severity_failure()` and its tools speak these.
GX_SEVERITY = {"critical": "critical", "high": "warning", "medium": "warning", "low": "info", "info": "info"}
STATES = ("alert", "observe", "off")
AUDIENCES = ("rep", "admin")
STAGES = (
    "prequalified", "qualified", "discovery", "proposal", "negotiation", "closed_won", "closed_lost", "on_hold", "unmapped",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One rule of the catalogue. The `*_sql` texts are SQL expressions over the table `subject`, thresholds filled in."""

    rule_id: str
    title: str
    mistake: str
    severity: str
    state: str
    audience: str
    group: str
    description: str
    fix: str
    waivable: bool
    gravest: str
    """The gravest severity that the rule can give a deal: critical rules cannot be snoozed."""
    kwargs: Mapping[str, str]
    """The expectation's kwargs, as verdict.py reads them."""
    severity_sql: str
    message_sql: str
    evidence_sql: str
    thresholds: Mapping[str, Any]
    reference: Mapping[str, Any]
    """Built-in values of reference statistics, used until the org has enough won deals of its own."""
    where: str
    """`file:line` of the rule."""
    definition: str
    """Hash of what decides the verdict; when it changes, findings that end may have ended for that reason."""
    source: Mapping[str, Any]
    """The expectation as the suite file has it, for the documentation."""
    reads: Mapping[str, bool]
    """What its conditions need to read, as columns of core.opportunity (evidence.NAME: a mapped field), and whether all of them do.
    Where a source keeps such a column from us (core.unreadable), the rule cannot judge its deals, or judges them by the rest."""


@dataclass(frozen=True)
class Catalogue:
    """Every rule that is declared, those that are off too, in the order of the suites."""

    rules: tuple[Rule, ...]
    version: str
    shadow_days: int

    def rule(self, rule_id: str) -> Rule:
        return next(rule for rule in self.rules if rule.rule_id == rule_id)

    def reference(self, metric: str) -> Any:
        """Built-in value(s) of a reference statistic, from the rule that uses it; None if no rule does."""
        return next((rule.reference[metric] for rule in self.rules if metric in rule.reference), None)
