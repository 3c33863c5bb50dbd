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


@flow(name="reconcile", flow_run_name="reconcile", log_prints=True)
def reconcile(config: str = "plumbline.toml", sources: list[str] | None = None, sync: bool = True, now: datetime | None = None) -> None:
    """Compare CRMs and warehouse and mend what differs; red when they differed. sync: bring the warehouse up to date first."""
    from flows.reconcile import reconcile as compare
    from flows.run import instant, open_run
    from flows.settings import load_settings

    settings = load_settings(Path(config))
    settings.chosen(sources)
    log = get_run_logger()
    with open_run("reconcile", settings, instant(now.isoformat() if now else None), say=log.info, warn=log.warning) as run:
        result = compare(run, sources, sync=sync)
    for line in result.lines():
        log.info(line)
    result.raise_failures()
