"""One request and one answer, as the handlers see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from connectors.simulator.hubspot.errors import validation
from connectors.simulator.hubspot.portal import HubSpotPortal


@dataclass
class Call:
    """One request as a handler sees it. `json` is the body of a POST, PUT or PATCH; `query` keeps repeated names."""

    portal: HubSpotPortal
    method: str
    path: str
    params: Mapping[str, str]
    query: list[tuple[str, str]]
    host: str
    json: Any = None
    form: dict[str, str] = field(default_factory=dict)
    late: float | None = None

    def one(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)

    def many(self, name: str) -> list[str]:
        """Values of a parameter that may be repeated, comma-joined, or both."""
        return [part for key, value in self.query if key == name for part in value.split(",") if part]

    def flag(self, name: str) -> bool:
        return (self.one(name) or "").lower() == "true"

    def whole(self, name: str, default: int, most: int) -> int:
        given = self.one(name)
        if given is None:
            return default
        if not given.isdigit():
            raise validation(f"Invalid value for {name}: {given}", context={name: [given]})
        if not 1 <= int(given) <= most:
            raise validation(f"{name} must be between 1 and {most}, not {given}", context={name: [given]})
        return int(given)

    def link(self, after: str) -> str:
        kept = [(key, value) for key, value in self.query if key != "after"]
        return f"https://api.hubapi.com{self.path}?{urlencode([*kept, ('after', after)])}"

    @property
    def now(self) -> datetime:
        return self.portal.clock.now()

    def need(self, *scopes: str) -> None:
        self.portal.access.need(scopes)


@dataclass
class Answer:
    """A status and a body: text that is JSON already, or anything that can be made JSON; None for no body."""

    body: Any = None
    status: int = 200


Handler = Callable[[Call], Answer]
