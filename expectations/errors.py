"""What can go wrong with the rules, each error written for the person who wrote the rule or runs the check."""

from __future__ import annotations

from collections.abc import Mapping


class ExpectationsError(Exception):
    """Base of what this room raises. `str()` is one or two plain lines: what, where, what to do."""


class RuleError(ExpectationsError):
    """A suite file or a `[rules]` setting is wrong. Nothing was judged: a rule is never dropped in silence.

    `where` is `file:line` for a suite, the key for a setting; `rule_id` is None when the rule has no readable id.
    """

    def __init__(self, what: str, *, where: str, fix: str = "", rule_id: str | None = None) -> None:
        self.what, self.where, self.fix, self.rule_id = what, where, fix, rule_id
        rule = f" (rule {rule_id})" if rule_id else ""
        super().__init__(f"{where}{rule}: {what}" + (f"\n{fix}" if fix else ""))


class RulesNotRun(RuleError):
    """Rules that failed while they ran, on the data; unlike other rule errors this one leaves what the other rules found in place."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        told = "; ".join(f"{rule}: {error.splitlines()[0]}" for rule, error in sorted(errors.items()))
        super().__init__(
            f"{len(errors)} could not be run, {told}", where="Rules", fix="What the other rules found stands. Mend the rule, or set its state to off."
        )


class ReconciliationError(ExpectationsError):
    """Great Expectations and the findings disagree on a count: the run is an error and nothing was written."""

    def __init__(self, mismatches: list[str]) -> None:
        self.mismatches = mismatches
        shown = "; ".join(mismatches[:5]) + (f"; and {len(mismatches) - 5} more" if len(mismatches) > 5 else "")
        super().__init__(
            f"The findings do not add up to what Great Expectations counted: {shown}.\n"
            "Nothing was written. Run the check again while no other program writes to the warehouse."
        )
