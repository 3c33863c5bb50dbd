"""The expectation type of hygiene rules: every opportunity that a rule applies to passes it, is waived, or cannot be judged.

Its metric is one aggregate over the batch, so GX bundles a whole suite of them into a single query. GX gives counts only;
which deals fail is read afterwards from the same expressions, out of the Validation Result's own kwargs (findings.py).

Importing this module imports Great Expectations, which takes seconds.
"""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_partial
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from expectations import verdict


class OpportunityVerdicts(TableMetricProvider):
    """Deals by verdict, packed as verdict.tally takes them apart."""

    metric_name = "plumbline.opportunity_verdicts"
    value_keys = verdict.KWARGS

    @metric_partial(
        engine=SqlAlchemyExecutionEngine,
        partial_fn_type=MetricPartialFunctionTypes.AGGREGATE_FN,
        domain_type=MetricDomainTypes.TABLE,
    )
    def _sqlalchemy(
        cls,
        execution_engine: SqlAlchemyExecutionEngine,
        metric_domain_kwargs: dict[str, Any],
        metric_value_kwargs: dict[str, Any],
        metrics: dict[str, Any],
        runtime_configuration: dict[str, Any],
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        return sa.literal_column(verdict.tally_sql(metric_value_kwargs)), metric_domain_kwargs, {}


class ExpectOpportunitiesToPass(BatchExpectation):
    """`expect_opportunities_to_pass`: at least `mostly` of the deals that can be judged pass, waived ones aside.

    In the result `element_count` is the deals it applies to, `missing_count` those that cannot be judged, `unexpected_count`
    those that fail and are not waived. The expressions are those of verdict.py.
    """

    # None has a default: GX leaves values that equal the default out of the Validation Result, which has to describe itself.
    rule_id: str
    applies_when: str
    unknown_because: str
    fails_when: str
    waived_when: str
    mostly: float = 1.0

    metric_dependencies: ClassVar[tuple[str, ...]] = ("plumbline.opportunity_verdicts",)
    success_keys: ClassVar[tuple[str, ...]] = (*verdict.KWARGS, "rule_id", "mostly")
    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id", "row_condition", "condition_parser")

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: dict[str, Any] | None = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        n = verdict.tally(metrics["plumbline.opportunity_verdicts"])
        failed_share = n.failed / n.evaluable if n.evaluable else 0.0
        return {
            "success": n.failed == 0 or 1 - failed_share >= self.mostly,
            "result": {
                "observed_value": f"{n.failed} of {n.evaluable} opportunities fail",
                "element_count": n.applicable,
                "missing_count": n.unknown,
                "missing_percent": 100 * n.unknown / n.applicable if n.applicable else 0.0,
                "unexpected_count": n.failed,
                "unexpected_percent": 100 * failed_share,
                "waived_count": n.waived,
            },
        }
