"""What the warehouse already holds of a portal's records: some of them must be looked at again although nothing moved their stamp."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from connectors.hubspot.objects import RECYCLE_BIN_DAYS

MARGIN = timedelta(days=7)  # the warehouse's deleted_at may be the day on which a run noticed, not the day it happened


@dataclass
class Known:
    """Ids of deals by what the warehouse believes of them; `companies` the same of companies, of which none is open."""

    live: set[str] = field(default_factory=set)
    open: list[str] = field(default_factory=list)
    deleted: dict[str, datetime | None] = field(default_factory=dict)
    companies: Known | None = None

    @classmethod
    def read(cls, path: Path | None) -> Known | None:
        """The lines ``{"object"?, "id", "is_deleted", "is_closed"?, "deleted_at"?}`` of `path`, of deals where they name no object; None
        without a file."""
        if path is None or not path.exists():
            return None
        deals = cls(companies=cls())
        with path.open("rb") as lines:
            for line in lines:
                if not line.strip():
                    continue
                deal = orjson.loads(line)
                known = deals.companies if deal.get("object") == "companies" and deals.companies else deals
                key = str(deal["id"])
                if deal.get("is_deleted"):
                    at = deal.get("deleted_at")
                    known.deleted[key] = datetime.fromisoformat(at) if at else None
                else:
                    known.live.add(key)
                    if known is deals and not deal.get("is_closed"):
                        known.open.append(key)
        return deals

    def restorable(self, now: datetime | None) -> set[str]:
        """Deleted records that somebody may still take out of the recycle bin."""
        horizon = now - timedelta(days=RECYCLE_BIN_DAYS) - MARGIN if now else None
        return {key for key, at in self.deleted.items() if at is None or at.tzinfo is None or horizon is None or at >= horizon}
