"""Flows and steps: Prefect flow runs and task runs when a Prefect API is at hand, plain calls otherwise.

The same functions run either way. Prefect is imported only when it records (its import alone takes seconds, its ephemeral
server tens of seconds and it loses task runs), so a command on a laptop starts nothing. What happened is in `ops` in both cases.
Prefect sees the names of flows and steps, the configuration's path and `--now`; never settings, secrets or rows.
"""

from __future__ import annotations

import contextvars
import functools
import os
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def prefect_api() -> str | None:
    """Address of the Prefect API at hand: $PREFECT_API_URL, else that of the active profile. Does not import Prefect."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        document = tomllib.loads(profiles.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or document.get("active")
    url = document.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return url if isinstance(url, str) else None


def prefect_answers(url: str, seconds: float = 3.0) -> bool:
    """Whether the API is up: an unreachable one must not cost the night its sync."""
    import requests

    try:
        return requests.get(url.rstrip("/") + "/health", timeout=seconds).ok
    except requests.RequestException:
        return False


def quiet_prefect() -> None:
    """Before Prefect's first import: no telemetry, and its log goes to its API, not to the terminal, which is ours."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")


def settle(seconds: float = 10) -> None:
    """Send what Prefect's client still holds of logs and events to its API. To be called while the API is up: at exit the
    client tries for more than a minute to reach one that is gone."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=seconds, at_exit=False)


def _recording() -> bool:
    """Whether this thread runs inside a Prefect flow run."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None


def also_recorded(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, and the same line in the flow run's log where one is being recorded."""

    def both(line: str) -> None:
        say(line)
        if _recording():
            from prefect import get_run_logger

            get_run_logger().info(line)

    return both


def step(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A step that an operator would name: a task run inside a Prefect flow run, a plain call elsewhere."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _recording():
                return function(*args, **kwargs)
            source = next((getattr(arg, "name", None) for arg in args if hasattr(arg, "crm")), None)  # steps of one source carry its name
            return _task(name, functools.partial(function, *args, **kwargs), f"{name} {source}" if source else name)()

        return call

    return decorate


def _task(name: str, body: Callable[[], R], run_name: str) -> Callable[[], R]:
    """A Prefect task around a call without parameters: nothing for Prefect to hash, traverse or store."""
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def run() -> R:
        return body()

    return task(name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(run)


def together(calls: list[Callable[[], R]]) -> list[R | BaseException]:
    """Run calls at once, a thread each; an exception of one is its result and does not stop the others."""

    outcomes: list[R | BaseException] = [RuntimeError("not run")] * len(calls)

    def run(place: int, call: Callable[[], R]) -> None:
        try:
            outcomes[place] = call()
        except Exception as error:
            outcomes[place] = error

    # Each thread gets the flow run's context, so that its steps are recorded under it. Daemons, because a command that is told to
    # stop must not wait for a CRM's answer.
    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(run, place, call), name="source", daemon=True)
        for place, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def recorded(name: str, parameters: dict[str, Any], body: Callable[[], R], warn: Callable[[str], None]) -> R:
    """Run `body` as the Prefect flow `name` when an API is at hand and answers, else in place.

    parameters: config, now and options, plain values that the Prefect UI shows. An error of `body` fails the flow run and is
    raised unchanged; so does a result whose `raise_failures` raises, which is returned all the same.
    """
    url = prefect_api()
    if _recording() or url is None:
        return body()
    if not prefect_answers(url):
        warn(f"The Prefect API at {url} does not answer: this run is recorded in the warehouse only.")
        return body()
    quiet_prefect()
    from prefect import flow
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    outcome: list[R] = []

    @flow(name=name, flow_run_name=name, persist_result=False, validate_parameters=False)
    def entry(config: str, now: str, options: dict[str, Any]) -> None:
        outcome.append(body())
        if hasattr(outcome[0], "raise_failures"):
            outcome[0].raise_failures()  # a source that failed must not leave a green flow run

    # The heartbeat thread makes every flow run last a second longer, and only long-lived workers profit from it.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        try:
            entry(**parameters)
        except Exception:
            if not outcome:
                raise
    return outcome[0]  # with its failures, which the caller shows and raises
