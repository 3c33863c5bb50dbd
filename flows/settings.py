"""`plumbline.toml`: read, filled in from the environment, checked. docs/configuration.md is its reference.

Every mistake is found at the start and named with its place and its fix; no secret is ever part of a message.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from connectors.hubspot.settings import HubSpotSettings
from connectors.salesforce.settings import SalesforceSettings
from flows.errors import ConfigError, UnknownSource

DEFAULT_FILE = "plumbline.toml"
BLOCK = "prefect-block:secret/"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SOURCE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
Severity = Literal["critical", "high", "medium", "low", "info"]
SourceSettings = SalesforceSettings | HubSpotSettings
STAGES = (
    "prequalified",
    "qualified",
    "discovery",
    "proposal",
    "negotiation",
    "closed_won",
    "closed_lost",
    "on_hold",
)  # docs/stages.md
CRM_NAMES = {"salesforce": "Salesforce", "hubspot": "HubSpot"}  # as their makers write them
CRMS: dict[str, type[SalesforceSettings] | type[HubSpotSettings]] = {"salesforce": SalesforceSettings, "hubspot": HubSpotSettings}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WarehouseSettings(_Table):
    """Where the DuckDB files are. Relative paths are relative to the configuration file."""

    path: Path = Path("data/plumbline.duckdb")
    published: Path = Path("data/published/plumbline.duckdb")
    landing: Path = Path("data/landing")
    keep_landings: int = Field(default=3, ge=0, description="pulls of each source kept on disk after they were loaded")
    memory_limit: str = Field(default="750MB", pattern=r"(?i)^\d+(\.\d+)?\s*(MB|GB|MiB|GiB)$")
    threads: int | None = Field(default=None, ge=1)


class BusinessSettings(_Table):
    """What a day, a year and money mean. Unset: as the CRM's organisation says."""

    timezone: str | None = None
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    fiscal_year_start_month: int | None = Field(default=None, ge=1, le=12)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None and name not in available_timezones():
            close = difflib.get_close_matches(name, available_timezones(), n=1)
            raise ValueError(
                f"no time zone is called {name!r}" + (f"; did you mean {close[0]!r}?" if close else "; take a name like 'Europe/Berlin'")
            )
        return name


class MetricsSettings(_Table):
    """CSV files of what the company plans. Unset: the tables core.target and core.fiscal_period are left as they are."""

    targets: Path | None = Field(default=None, description="columns period_start, period_end, amount_home, or also measure, source, pipeline, owner")
    periods: Path | None = Field(default=None, description="columns fiscal_year, fiscal_quarter, fiscal_period, period_start, period_end")


class ReportSettings(_Table):
    path: Path = Path("data/report")


class WritebackSettings(_Table):
    """Whether and how flags go back to the CRM. Off until somebody decides."""

    mode: Literal["off", "plan", "approve", "apply"] = "off"
    max_share: float = Field(default=0.2, gt=0, le=1, description="of the open deals, at most, changed in one run")
    appear_after: int = Field(default=2, ge=1, description="checks in a row before a flag that is not critical is written")


class Settings(_Table):
    """The whole of a configuration, checked."""

    file: Path
    warehouse: WarehouseSettings = WarehouseSettings()
    business: BusinessSettings = BusinessSettings()
    metrics: MetricsSettings = MetricsSettings()
    report: ReportSettings = ReportSettings()
    writeback: WritebackSettings = WritebackSettings()
    rules: dict[str, Any] = {}
    sources: dict[str, SourceSettings] = {}

    def chosen(self, names: list[str] | None) -> list[SourceSettings]:
        """The sources called `names`, or all of them. Raises UnknownSource, naming those that exist."""
        if not self.sources:
            raise ConfigError(f'{self.file}: no source is configured.\nAdd a table [sources.NAME] with crm = "salesforce" or "hubspot".')
        for name in names or ():
            if name not in self.sources:
                raise UnknownSource(f"No source is called {name!r}.{_hint(name, self.sources)}\n{self.file} has: {', '.join(self.sources)}.")
        return [source for name, source in self.sources.items() if not names or name in names]


def find_file(given: Path | None) -> Path:
    """The configuration file: as given, else $PLUMBLINE_CONFIG, else ./plumbline.toml."""
    return (given or Path(os.environ.get("PLUMBLINE_CONFIG") or DEFAULT_FILE)).expanduser()


def load_settings(given: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check a configuration file.

    Raises ConfigError with every mistake found, one per line, each with the key and the fix.
    """
    file = find_file(given)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {file}.\nGive one with --config FILE or $PLUMBLINE_CONFIG; docs/configuration.md shows one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror if isinstance(error, OSError) else 'it is not UTF-8 text'}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}.\nStrings need quotes, tables look like [sources.sales].") from None
    mistakes: list[str] = []
    filled = _fill(document, os.environ if environment is None else environment, "", mistakes)
    return _build(file, filled, mistakes)


def _build(file: Path, document: dict[str, Any], mistakes: list[str]) -> Settings:
    base = file.resolve().parent
    tables: dict[str, Any] = {}
    known: dict[str, type[BaseModel]] = {
        "warehouse": WarehouseSettings,
        "business": BusinessSettings,
        "metrics": MetricsSettings,
        "report": ReportSettings,
        "writeback": WritebackSettings,
    }
    for key, value in document.items():
        if key not in {*known, "sources", "rules"}:
            mistakes.append(f"{key}: unknown table.{_hint(key, [*known, 'sources', 'rules'])}")
        elif not isinstance(value, dict):
            mistakes.append(f"{key}: must be a table, written [{key}].")
        elif key == "rules":
            tables[key] = value
        elif key in known:
            tables[key] = _checked(known[key], value, f"[{key}]", mistakes)
    sources: dict[str, Any] = {}
    raw_sources = document.get("sources")
    for name, value in raw_sources.items() if isinstance(raw_sources, dict) else ():
        place = f"[sources.{name}]"
        if not SOURCE_NAME.fullmatch(name):
            mistakes.append(f"{place}: a source's name is small letters, digits, - and _, at most 40, and starts with a letter.")
        if not isinstance(value, dict):
            mistakes.append(f"{place}: must be a table.")
            continue
        crm = value.get("crm")
        if crm not in CRMS:
            said = "is missing" if crm is None else f"is {crm!r}"
            mistakes.append(f'{place} crm: {said}. Write crm = "salesforce" or crm = "hubspot".')
            continue
        if "private_key_file" in value and isinstance(value["private_key_file"], str):
            value["private_key_file"] = base / Path(value["private_key_file"]).expanduser()
        sources[name] = source = _checked(CRMS[crm], {**value, "name": name}, place, mistakes)
        for pipeline in (source.stages if source else {}).values():
            mistakes += [
                f"{place} stages: {label!r} cannot stand for {stage!r}.{_hint(stage, STAGES)} Canonical stages are {', '.join(STAGES)}."
                for label, stage in pipeline.items()
                if stage not in STAGES
            ]
    if mistakes:
        raise ConfigError("\n".join([f"{file} cannot be used:", *(f"  {line}" for line in mistakes)]))
    for table, keys in (("warehouse", ("path", "published", "landing")), ("report", ("path",))):
        model = tables.get(table) or known[table]()
        tables[table] = model.model_copy(update={key: base / getattr(model, key).expanduser() for key in keys})
    plans = tables.get("metrics") or MetricsSettings()
    tables["metrics"] = plans.model_copy(update={key: base / path.expanduser() for key in ("targets", "periods") if (path := getattr(plans, key))})
    if tables["warehouse"].path == tables["warehouse"].published:
        raise ConfigError(f"{file}: [warehouse] path and published are the same file.\nBI tools must read a copy: give published a path of its own.")
    return Settings(file=file, sources=sources, **tables)


def _checked(model: type[BaseModel], value: dict[str, Any], place: str, mistakes: list[str]) -> Any:
    try:
        return model(**value)
    except ValidationError as error:
        mistakes.extend(_plain(model, place, error))
        return None


def _plain(model: type[BaseModel], place: str, error: ValidationError) -> Iterator[str]:
    """Pydantic's findings as lines a person can act on. The input is not repeated: it may be a secret."""
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"])
        at = f"{place} {key}".strip()
        if item["type"] == "extra_forbidden":
            yield f"{at}: unknown key.{_hint(key, model.model_fields)}"
        elif item["type"] == "missing":
            yield f"{at}: is missing. Add {key} = … to {place}."
        else:
            yield f"{at}: {item['msg'].removeprefix('Value error, ')}."


def _hint(word: str, candidates: Any) -> str:
    close = difflib.get_close_matches(word, [c for c in candidates if c != "name"], n=1)
    return f" Did you mean {close[0]}?" if close else ""


def _fill(value: Any, environment: Mapping[str, str], place: str, mistakes: list[str]) -> Any:
    """`value` with ${NAME} read from the environment and secret blocks from Prefect, all the way down."""
    if isinstance(value, dict):
        return {key: _fill(item, environment, f"{place}.{key}" if place else key, mistakes) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, environment, place, mistakes) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(BLOCK):
        return _secret_block(value.removeprefix(BLOCK), place, mistakes)

    def read(match: re.Match[str]) -> str:
        name = match.group(1)
        if not environment.get(name):
            mistakes.append(f"{place}: the environment variable {name} is {'empty' if name in environment else 'not set'}. Run: export {name}=…")
            return match.group(0)
        return environment[name]

    return VARIABLE.sub(read, value)


def _secret_block(name: str, place: str, mistakes: list[str]) -> str:
    from prefect.blocks.system import Secret

    try:
        block = Secret.load(name)
        return str(block.get())  # type: ignore[union-attr]
    except Exception:  # no API, no such block, no permission: for the user it is one thing, and Prefect's text may quote the value
        mistakes.append(f"{place}: the Prefect secret block {name!r} could not be read. Is PREFECT_API_URL set, and does the block exist?")
        return ""
