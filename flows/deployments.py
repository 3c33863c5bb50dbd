"""Entry points of prefect.yaml: the flows that a Prefect worker starts. They import Prefect, so nothing else imports them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from prefect import flow, get_run_logger


@flow(name="nightly", flow_run_name="nightly", log_prints=True)
def nightly(config: str = "plumbline.toml", now: datetime | None = None) -> None:
    """The night. config: path of plumbline.toml, relative to the working directory. now: the present; the clock when left out."""
    from flows.nightly import nightly as night
    from flows.nightly import ready
    from flows.run import instant, open_run
    from flows.settings import load_settings

    settings = load_settings(Path(config))
    ready(settings)
    log = get_run_logger()
    with open_run("nightly", settings, instant(now.isoformat() if now else None), say=log.info, warn=log.warning) as run:
        result = night(run)
    for line in result.lines():
        log.info(line)
    result.raise_failures()


@flow(name="sync", flow_run_name="sync", log_prints=True)
def sync(config: str = "plumbline.toml", sources: list[str] | None = None, full: bool = False, now: datetime | None = None) -> None:
    """Pull and load only. sources: names, all when left out. full: read everything again."""
    from flows.run import instant, open_run
    from flows.settings import load_settings
    from flows.sync import sync as pull_and_load

    settings = load_settings(Path(config))
    settings.chosen(sources)
    log = get_run_logger()
    with open_run("sync", settings, instant(now.isoformat() if now else None), say=log.info, warn=log.warning) as run:
        result = pull_and_load(run, sources, full=full)
    for line in result.lines():
        log.info(line)
    result.raise_failures()
