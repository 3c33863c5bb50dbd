"""Deal pipelines and their stages, with the properties that HubSpot makes for every stage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from connectors.simulator.clock import SimClock
from connectors.simulator.hubspot.catalogue import Catalogue, Property
from connectors.simulator.hubspot.errors import ApiError
from connectors.simulator.hubspot.store import Store
from connectors.simulator.hubspot.values import iso

DEFAULT_STAGES = (
    ("appointmentscheduled", "Appointment Scheduled", 0.2, False),
    ("qualifiedtobuy", "Qualified To Buy", 0.4, False),
    ("presentationscheduled", "Presentation Scheduled", 0.6, False),
    ("decisionmakerboughtin", "Decision Maker Bought-In", 0.8, False),
    ("contractsent", "Contract Sent", 0.9, False),
    ("closedwon", "Closed Won", 1.0, True),
    ("closedlost", "Closed Lost", 0.0, True),
)
STAGE_PROPERTIES = (
    ("hs_v2_date_entered_", "Date entered", "datetime", "date"),
    ("hs_v2_date_exited_", "Date exited", "datetime", "date"),
    ("hs_v2_latest_time_in_", "Latest time in", "number", "number"),
    ("hs_v2_cumulative_time_in_", "Cumulative time in", "number", "number"),
)


@dataclass(frozen=True)
class Stage:
    """probability 0 to 1; a closed stage with probability 1 is won, one with 0 lost."""

    pipeline: str
    id: str
    label: str
    probability: float
    is_closed: bool
    archived: bool

    @property
    def is_won(self) -> bool:
        return self.is_closed and self.probability == 1.0

    @property
    def is_lost(self) -> bool:
        return self.is_closed and self.probability == 0.0


class Pipelines:
    def __init__(self, store: Store, catalogue: Catalogue, clock: SimClock) -> None:
        self.store, self.catalogue, self.clock = store, catalogue, clock
        self._stages: dict[tuple[str, str], Stage] = {}
        if not store.value("select count(*) from pipeline"):
            self.add_pipeline("default", "Sales Pipeline")
            for stage_id, label, probability, is_closed in DEFAULT_STAGES:
                self.add_stage("default", label, probability, is_closed, stage_id=stage_id)
        self.read()

    def read(self) -> None:
        rows = self.store.rows(
            "select pipeline, id, label, probability, is_closed, archived_at is not null from stage order by display_order"
        )
        self._stages = {(row[0], row[1]): Stage(*row) for row in rows}

    def stage(self, pipeline: str | None, stage_id: str | None) -> Stage | None:
        return self._stages.get((pipeline or "", stage_id or ""))

    def stages(self, pipeline: str | None = None) -> list[Stage]:
        return [stage for stage in self._stages.values() if pipeline is None or stage.pipeline == pipeline]

    def first_stage(self, pipeline: str) -> str | None:
        return next((s.id for s in self.stages(pipeline) if not s.is_closed and not s.archived), None)

    def pipeline_ids(self) -> set[str]:
        return {str(row[0]) for row in self.store.rows("select id from pipeline where archived_at is null")}

    def add_pipeline(self, pipeline: str, label: str, display_order: int | None = None) -> None:
        now = self.clock.now()
        order = display_order if display_order is not None else self.store.value("select count(*) from pipeline")
        self.store.run("insert into pipeline values (?, ?, ?, null, ?, ?)", [pipeline, label, order, now, now])

    def add_stage(
        self,
        pipeline: str,
        label: str,
        probability: float,
        is_closed: bool = False,
        display_order: int | None = None,
        *,
        stage_id: str | None = None,
    ) -> str:
        """A new stage; its id is opaque, as those that HubSpot gives. Later stages move back. Returns the id."""
        now = self.clock.now()
        with self.store.transaction():
            if not self.store.value("select count(*) from pipeline where id = ?", [pipeline]):
                raise ApiError(404, f"There is no pipeline {pipeline}", "OBJECT_NOT_FOUND")
            count = self.store.value("select count(*) from stage where pipeline = ?", [pipeline])
            order = count if display_order is None else display_order
            if stage_id is None:
                stage_id = str(998_300_000 + 1013 * (self.store.value("select count(*) from stage") + 1))
            self.store.run(
                "update stage set display_order = display_order + 1 where pipeline = ? and display_order >= ?", [pipeline, order]
            )
            self.store.run(
                "insert into stage values (?, ?, ?, ?, ?, ?, null, ?, ?)",
                [pipeline, stage_id, label, order, probability, is_closed, now, now],
            )
            self.declare(pipeline, stage_id, label)
        self.read()
        return stage_id

    def declare(self, pipeline: str, stage_id: str, label: str) -> None:
        """The four time properties of a stage. The properties API does not list them; who names them gets them."""
        deals = self.catalogue.types["deals"]
        for prefix, words, kind, field_type in STAGE_PROPERTIES:
            name = prefix + stage_id
            if name not in deals.properties:
                self.catalogue.add(
                    deals,
                    Property(
                        name, f'{words} "{label} ({pipeline})"', kind, field_type, "dealstages", calculated=True, listed=False
                    ),
                )

    def change_stage(self, pipeline: str, stage_id: str, **changes: Any) -> None:
        """Set label, probability, is_closed, display_order or archived_at of a stage."""
        known = {"label", "probability", "is_closed", "display_order", "archived_at"}
        if not changes.keys() <= known:
            raise ValueError(f"A stage has no {', '.join(sorted(changes.keys() - known))}")
        if self.stage(pipeline, stage_id) is None:
            raise ApiError(404, f"There is no stage {stage_id} in pipeline {pipeline}", "OBJECT_NOT_FOUND")
        sets = ", ".join(f"{name} = ?" for name in changes)
        self.store.run(
            f"update stage set {sets}, updated_at = ? where pipeline = ? and id = ?",
            [*changes.values(), self.clock.now(), pipeline, stage_id],
        )
        self.read()

    def rename_pipeline(self, pipeline: str, label: str) -> None:
        self.store.run("update pipeline set label = ?, updated_at = ? where id = ?", [label, self.clock.now(), pipeline])

    def listing(self, pipeline: str | None = None) -> list[dict[str, Any]]:
        """Pipelines as the API gives them, archived ones left out and archived stages kept, marked."""
        rows = self.store.rows(
            """select id, label, display_order, created_at, updated_at from pipeline
               where archived_at is null and (? is null or id = ?) order by display_order, id""",
            [pipeline, pipeline],
        )
        return [
            {
                "label": label,
                "displayOrder": order,
                "id": pipeline_id,
                "stages": self.stage_listing(pipeline_id),
                "createdAt": iso(created),
                "updatedAt": iso(updated),
                "archived": False,
            }
            for pipeline_id, label, order, created, updated in rows
        ]

    def stage_listing(self, pipeline: str) -> list[dict[str, Any]]:
        rows = self.store.rows(
            """select id, label, display_order, probability, is_closed, archived_at, created_at, updated_at from stage
               where pipeline = ? order by display_order, id""",
            [pipeline],
        )
        return [_stage(*row) for row in rows]


def _stage(
    stage_id: str,
    label: str,
    order: int,
    probability: float,
    is_closed: bool,
    archived_at: datetime | None,
    created: datetime,
    updated: datetime,
) -> dict[str, Any]:
    return {
        "label": label,
        "displayOrder": order,
        # Strings, both of them: the API documents metadata as a map of text.
        "metadata": {"isClosed": "true" if is_closed else "false", "probability": str(float(probability))},
        "id": stage_id,
        "createdAt": iso(created),
        "updatedAt": iso(updated),
        **({"archivedAt": iso(archived_at)} if archived_at else {}),
        "archived": archived_at is not None,
        "writePermissions": "CRM_PERMISSIONS_ENFORCEMENT",
    }
