"""What a look at a CRM found: one plain line each, with what to do about it. Nothing is written, neither there nor here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from connectors.errors import CrmError

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Diagnosis:
    """One finding. said, fix: one plain line each, without secrets; fix is None where nothing is to be done.

    state: problem: what is configured cannot be done. warning: it can, with something missing or soon missing.
    detail: the facts behind the line, JSON-able. `unreadable` in it names what the CRM does not show, as "Object" or
    "Object.Field": which rules cannot be judged for that, the caller knows.
    """

    area: str
    state: State
    said: str
    fix: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def failure(area: str, error: CrmError) -> Diagnosis:
    """An error of a connector as a finding."""
    where = f" ({error.object})" if error.object and error.object != area else ""
    return Diagnosis(area, "problem", f"{error.what}{where}", error.fix, {"code": error.code} if error.code else {})
