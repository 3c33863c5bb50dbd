"""What can go wrong with the warehouse, each error written for the person who reads it."""

from __future__ import annotations

from pathlib import Path

# raw: records as delivered; core: one shape for every CRM; quality: judgements; ops: the record of runs; bi: the public face.
SCHEMAS = ("raw", "core", "quality", "ops", "bi")


class WarehouseError(Exception):
    """The warehouse cannot do what is asked. `str()` is one or two plain lines: what, where, and what to do."""

    def __init__(self, what: str, *, path: Path | str, fix: str) -> None:
        self.what, self.path, self.fix = what, str(path), fix
        super().__init__(f"{path}: {what}\n{fix}")


class WarehouseLocked(WarehouseError):
    """Another process holds the file: another run, or a tool that opened the private file instead of the published one."""


class WarehouseNewer(WarehouseError):
    """A later Plumbline or a later DuckDB wrote the file."""


class WarehouseDamaged(WarehouseError):
    """The file is not a DuckDB database, or no longer a whole one."""


class WarehouseMissing(WarehouseError):
    """There is no warehouse to read yet."""


def check_name(path: Path) -> None:
    """Raises WarehouseError for a file called as one of its schemas: DuckDB names a database by its file, and `core.opportunity` in
    core.duckdb means two things."""
    if path.stem.lower() in SCHEMAS:
        what = f"{path.stem} is also the name of a schema inside, which DuckDB cannot tell apart."
        raise WarehouseError(what, path=path, fix=f"Call the file otherwise, for instance {path.with_stem('plumbline').name}.")


class LandingError(WarehouseError):
    """A landed pull cannot be read: it is unfinished, of a format of the future, or its files are not what its manifest says."""
