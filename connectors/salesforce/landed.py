"""What one object's extraction has put on disk so far."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from connectors.landing import LandedFile


@dataclass
class Landed:
    """Files of one object, the greatest cursor in them, and whether they are all that was asked for."""

    directory: Path
    files: list[LandedFile] = field(default_factory=list)
    greatest: datetime | None = None
    whole: bool = True
    notices: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    def clear(self) -> None:
        """Forget what is there and remove it: an attempt that is begun anew, or the left-overs of a killed run."""
        for path in self.directory.iterdir():
            path.unlink()
        self.files, self.greatest, self.whole = [], None, True

    def saw(self, stamp: datetime | None) -> None:
        if stamp is not None and (self.greatest is None or stamp > self.greatest):
            self.greatest = stamp

    def write_array(self, records: bytes, rows: int) -> None:
        """One JSON array as a file, whole or absent."""
        name = f"part-{len(self.files):05d}.json"
        part = self.directory / f"{name}.part"
        with part.open("wb") as out:
            out.write(records)
            out.flush()
            os.fsync(out.fileno())
        part.replace(self.directory / name)
        self.files.append(LandedFile(name, "json_array", rows, len(records)))
