"""A warehouse in a dictionary: takes landed HubSpot pulls in by the rules that docs/landing.md gives, for tests to compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def manifest(directory: Path, obj: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / obj / "manifest.json").read_text())
    return document


def lines(directory: Path, obj: str) -> Iterator[Line]:
    """The records of an object, as its manifest names the files."""
    for file in manifest(directory, obj)["files"]:
        content = (directory / obj / file["name"]).read_bytes()
        assert len(content) == file["bytes"]
        records = [json.loads(line) for line in content.splitlines()]
        assert len(records) == file["rows"]
        yield from records


@dataclass
class Believed:
    """What is believed of a portal's deals after the pulls that were taken in."""

    live: dict[str, Line] = field(default_factory=dict)
    deleted: dict[str, Line] = field(default_factory=dict)
    merged_into: dict[str, str] = field(default_factory=dict)
    contacts: dict[str, set[str]] = field(default_factory=dict)
    company: dict[str, str | None] = field(default_factory=dict)
    history: dict[str, Line] = field(default_factory=dict)
    watermarks: dict[str, datetime] = field(default_factory=dict)

    def take(self, directory: Path) -> None:
        pull = json.loads((directory / "pull.json").read_text())
        if "deals" in pull["objects"]:
            self._take_deals(directory)
        for obj in pull["objects"]:
            if mark := manifest(directory, obj)["watermark"]:
                self.watermarks[obj] = datetime.fromisoformat(mark)

    def _take_deals(self, directory: Path) -> None:
        landed = {line["id"]: line for line in lines(directory, "deals")}
        for key, line in landed.items():
            self.deleted.pop(key, None)
            self.live[key] = line["properties"]
            if "associations" in line or manifest(directory, "deals")["mode"] == "full":
                self._associate(key, line.get("associations") or {})
        gone = {line["id"]: line["properties"] for line in lines(directory, "deals.archived")}
        gone |= {line["id"]: {} for line in lines(directory, "deals.gone")}
        if manifest(directory, "deals")["complete"]:
            gone |= {key: {} for key in self.live.keys() - landed.keys() if key not in gone}
        for key, properties in [*self.live.items(), *gone.items()]:
            for loser in filter(None, (properties.get("hs_merged_object_ids") or "").split(";")):
                self.merged_into[loser] = key
                gone[loser] = {}
        for key, properties in gone.items():
            self.deleted[key] = self.live.pop(key, None) or properties
        for line in lines(directory, "deals.associations"):
            self.contacts[line["id"]] = {one["id"] for one in line["contacts"]}
            self.company[line["id"]] = next((one["id"] for one in line["companies"] if one["primary"]), None)
        for line in lines(directory, "deals.history"):
            self.history[line["id"]] = line["propertiesWithHistory"]

    def survivor(self, key: str) -> str:
        """The deal that `key` is today. A deal merged twice stands on the survivor in between as well."""
        while key in self.merged_into:
            key = self.merged_into[key]
        return key

    def _associate(self, key: str, inline: Line) -> None:
        self.contacts[key] = {one["id"] for one in inline.get("contacts", {}).get("results", [])}
        companies = inline.get("companies", {}).get("results", [])
        self.company[key] = next((one["id"] for one in companies if one["type"] == "deal_to_company"), None)

    def write_known(self, path: Path, *, deleted_at: str | None = None) -> Path:
        with path.open("w") as out:
            for key, properties in self.live.items():
                closed = properties.get("hs_is_closed") == "true"
                out.write(json.dumps({"id": key, "is_deleted": False, "is_closed": closed}) + "\n")
            for key in self.deleted:
                out.write(json.dumps({"id": key, "is_deleted": True, "is_closed": False, "deleted_at": deleted_at}) + "\n")
        return path
