"""The rules, the Great Expectations suites, findings, scores and the report."""
