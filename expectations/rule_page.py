"""The page docs/rules.md, made from the suites: `python -m expectations.rule_page > docs/rules.md`. A test keeps it current."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from expectations.loader import load
from expectations.rule import GX_SEVERITY, POINTS, Rule
from expectations.sql_text import read_sql

INTRODUCTION = """\
# The rules

<!-- Made from expectations/suites by `python -m expectations.rule_page > docs/rules.md`; a test keeps it current. -->

A rule says which deals it applies to, when a deal fails it, and when it cannot be judged. Every deal gets one of five verdicts:

| verdict | meaning |
|---|---|
| pass | it applies and the deal is in order |
| fail | it applies and the deal is not: a finding |
| not applicable | the rule has nothing to say about this deal or its stage |
| unknown | it applies, but what it needs was not read or is too little to compare with; neither a pass nor a failure |
| waived | it fails, and an administrator's waiver or a seller's snooze says that this is agreed for now |

Open deals are judged, and deals closed in the last 90 days; deleted and merged ones are not. Days are whole days in the time zone of
the business, and today is the day of the run's `--now` there.

**Findings** are episodes: a finding opens at the first check that sees the deal fail, stays while it fails, and ends as `fixed`,
`closed`, `deleted`, `not_applicable` (the deal moved to where the rule has nothing to say), `unknown` (it can no longer be judged) or
`rule_changed`. A rule that could not be run opens and ends nothing. After each check the open findings of a rule are exactly the
deals that Great Expectations counted as failing it; otherwise the check is an error and writes nothing.

**What a CRM does not show.** A field that is hidden from Plumbline's user, gone from the org, or of an object that could not be read is
neither empty nor what it last was: each comparison that reads it is unknown by itself, and what is left of the condition decides as far
as it can. `is_won and amount = 0` stays false for an open deal whether or not amounts can be read. `core.unreadable` lists what each source
keeps from us and since when, `quality.rule.reads` what each rule needs, `plumbline doctor` and the report put the two together.

**States.** `alert` rules are shown to sellers, make the score and are written back. `observe` rules keep findings for the report only.
`off` rules are not run. With `shadow_days = 14` under `[rules]`, all alert rules observe for the first 14 days.

**Waivers and snoozes.** A waiver covers a deal, an account, an owner or a pipeline, for one rule or all. A snooze is a date that a
seller sets on the deal in the CRM, at most 30 days ahead (one further ahead does not count); rules that can be critical cannot be
snoozed. A past close date can be neither waived nor snoozed.

**Score.** A deal starts at 100. In each group of related rules the gravest open finding of an alert rule takes off its points:
{points}. `clean` is 90 and more with nothing critical or high, `at_risk` is under 60 or anything critical, `needs_attention` the rest.
The score of an owner, a pipeline, a source or all is over their deals from qualified to negotiation, weighted by amount: a deal without
an amount weighs as much as the median deal, none more than the largest twentieth. Owners and pipelines with few deals are drawn towards
the score of all.

**Reference statistics** come from the org's own deals won in the last 24 months, without renewals and without deals that were won within
a day of their creation. Each is taken from the pipeline's own deals, else from all of the source's, else from a built-in value; a
90th percentile needs 30 won deals, a 95th 60, a median 15, a quartile 30. While a rung has fewer than 100 deals its value is drawn
towards the next one's: (n x own + 20 x next) / (n + 20). Findings and `quality.reference_stat` say which rung was used.

## All rules

| rule | what it says | severity | group | state | who acts |
|---|---|---|---|---|---|
"""

WRITING = """\
## Changing a rule

In `plumbline.toml`, by the rule's name: its `state` and its thresholds. A threshold by stage takes one number for all stages, or numbers
for some:

```toml
[rules]
shadow_days = 14

[rules.no_recent_activity]
state = "observe"
days = {{ negotiation = 7 }}
```

## How a suite is written

The files in `expectations/suites` are Great Expectations suites in YAML, one per group. `type`, `severity`, `description`, `kwargs` and
`meta` are Great Expectations' own keys; its three severities follow from ours ({severities}).

| key | meaning |
|---|---|
| `kwargs.applies_when` | SQL condition over the columns below: which deals the rule is about |
| `kwargs.unknown_when` | list of `if` (a condition) and `because` (why such deals cannot be judged) |
| `kwargs.fails_when` | SQL condition: TRUE fails, FALSE passes, NULL is unknown. Or a list of `code`, `if`, `text`: one that holds fails |
| `meta.rule_id`, `title`, `mistake`, `fix` | the stable name, one sentence, the habit it catches, what clears it |
| `meta.severity`, `severity_when` | critical, high, medium, low or info; and a list of `if` and `then`, the first that holds wins |
| `meta.state`, `audience` | alert, observe or off; rep or admin |
| `meta.thresholds` | numbers, numbers by stage (`"*"`: every other stage), true/false or lists of texts; `$name` in any SQL |
| `meta.reference` | built-in values of a reference statistic |
| `meta.message` | text with `{{expression}}` or `{{expression:format}}` (days, money, number, date, percent). `$texts`: what fails |
| `meta.evidence` | name: SQL expression, kept with the finding. `$codes`: of the parts that fail |
| `meta.null_reason` | why a deal is unknown whose `fails_when` is NULL |
| `meta.waivable` | false: neither waiver nor snooze helps |

A mistake in a suite (an unknown key, type, column or threshold, SQL that does not parse or fit) stops the check with file and line; no
rule is ever left out in silence. SQL is DuckDB's. It sees one deal at a time, and its only clock is `business_date`.

### Columns

| column | type | meaning |
|---|---|---|
"""


def render() -> str:
    """The whole page."""
    rules = load().rules
    points = ", ".join(f"{name} {n}" for name, n in POINTS.items())
    parts = [INTRODUCTION.format(points=points)]
    parts += [f"| [{r.rule_id}](#{r.rule_id}) | {r.title} | {_severity(r)} | {r.group} | {r.state} | {r.audience} |\n" for r in rules]
    parts += ["\n", *(_rule(r) for r in rules)]
    parts.append(WRITING.format(severities=", ".join(f"{ours}: {gx}" for ours, gx in GX_SEVERITY.items())))
    parts += [f"| `{name}` | {kind} | {meaning} |\n" for name, kind, meaning in columns()]
    return "".join(parts)


def columns() -> list[tuple[str, str, str]]:
    """(name, type, meaning) of every column of the subject, out of its SQL file."""
    line = re.compile(r"^ {4}(\w+) +(\w+(?:\(.*?\)|\[\])?)(?: not null)?,? +-- (.*)$", re.MULTILINE)
    return [(m.group(1), m.group(2), m.group(3)) for m in line.finditer(read_sql("subject_table.sql"))]


def _severity(rule: Rule) -> str:
    return rule.severity if rule.gravest == rule.severity else f"{rule.severity} to {rule.gravest}"


def _rule(rule: Rule) -> str:
    kwargs, meta = rule.source["kwargs"], rule.source["meta"]
    lines = [f"### {rule.rule_id}\n", f"**{rule.title}.** {rule.description}\n", "| | |", "|---|---|"]
    lines += [f"| mistake | {rule.mistake} |", f"| severity | {rule.severity}{_grades(meta)} |"]
    lines.append(f"| applies when | {_code(kwargs['applies_when'])} |")
    fails = kwargs["fails_when"]
    if isinstance(fails, str):
        lines.append(f"| fails when | {_code(fails)} |")
    else:
        lines += [f"| fails when ({part['code']}) | {_code(part['if'])}: {part['text']} |" for part in fails]
    lines += [f"| unknown when | {_code(clause['if'])}: {clause['because']} |" for clause in kwargs.get("unknown_when", [])]
    if "null_reason" in meta:
        lines.append(f"| unknown when | the condition is NULL: {meta['null_reason']} |")
    lines += [f"| `{name}` | {_value(value)} |" for name, value in meta.get("thresholds", {}).items()]
    lines += [f"| built-in {name} | {_value(value)} |" for name, value in rule.reference.items()]
    if not rule.waivable:
        lines.append("| waivers | none: it can be neither waived nor snoozed |")
    lines.append(f"| fix | {rule.fix} |")
    return "\n".join(lines) + "\n\n"


def _grades(meta: Mapping[str, Any]) -> str:
    return "".join(f"; {clause['then']} when {_code(clause['if'])}" for clause in meta.get("severity_when", []))


def _code(sql: str) -> str:
    return "`" + " ".join(sql.split()).replace("|", "\\|") + "`"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        if all(n is None for n in value.values()):
            return f"by stage ({', '.join(value)}); not set"
        return ", ".join(f"{'every other stage' if stage == '*' else stage} {n}" for stage, n in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "empty"
    return "not set" if value is None else str(value).lower()


if __name__ == "__main__":
    sys.stdout.write(render())
