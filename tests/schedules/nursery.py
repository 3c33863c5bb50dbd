"""A process without threads that forks one child per sync, so that a sync starts in milliseconds and can be killed for good.

Run as a script it reads orders from stdin, one JSON document a line, and answers each with a line on stdout; `Nursery` is the other
end. The child runs the flow as its command does. Told to, it kills itself with SIGKILL at its n-th step; a step is what can be
observed from outside: a request about to be sent or just answered, a change of the directory, a step of the load, a record in ops.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

KINDS = ("request", "file", "load", "record")
# All that a sync imports, so that a child begins with it. pandas: DuckDB looks for it when it is given its first parameter.
PRELOADED = (
    "flows.reconcile", "flows.run", "flows.settings", "flows.sync", "warehouse.connection", "warehouse.load", "warehouse.ops",
    "warehouse.reconcile", "pandas", "pytz", "_strptime",
)  # fmt: skip
OF_CRM = {
    "salesforce": ("connectors.salesforce.extract", "connectors.salesforce.writeback", "simple_salesforce"),
    "hubspot": ("connectors.hubspot.extract", "connectors.hubspot.lookup", "connectors.hubspot.writeback"),
}


class Nursery:
    """Starts syncs. Each answer: {"status": "done" | "failed" | "killed" | "defect", "errors": {source: words}, "deals": counts,
    "steps": steps per kind, "killed_at": step, "trace": words of a defect}."""

    def __init__(self, environment: dict[str, str], crm: str) -> None:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__, crm],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def run(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process that starts syncs has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


class Steps:
    """Counts steps and ends the process at the one that was chosen. kind None: any."""

    def __init__(self, out: int, kind: str | None, number: int) -> None:
        self.out, self.kind, self.number = out, kind, number
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def step(self, kind: str, what: str) -> None:
        with self._lock:
            self.counts[kind] += 1
            if self.number and self.kind in (None, kind):
                self.number -= 1
                if self.number == 0:
                    os.write(self.out, json.dumps({"status": "killed", "killed_at": f"{kind} {self.counts[kind]}: {what}"}).encode())
                    os.kill(os.getpid(), signal.SIGKILL)

    def around(self, kind: str, owner: Any, name: str, what: Any = None) -> None:
        """Count a step before and one after each call of owner.name."""
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            said = f"{name} {what(*args, **kwargs) if what else ''}".strip()
            self.step(kind, f"before {said}")
            result = original(*args, **kwargs)
            self.step(kind, f"after {said}")
            return result

        setattr(owner, name, wrapped)


def _arrange(order: dict[str, Any], steps: Steps) -> None:
    """Short waits, small pages, reproducible names, and steps that are counted."""
    import warehouse.load
    import warehouse.ops

    {"salesforce": _arrange_salesforce, "hubspot": _arrange_hubspot}[sys.argv[1]](order, steps)
    started = order["now"].replace("-", "").replace(":", "")[:15]
    token = hashlib.md5(order["name"].encode(), usedforsecurity=False).hexdigest()[:4]
    warehouse.ops.new_run_id = lambda: f"{started}-{token}"

    os.fsync = lambda _: None  # the kernel outlives the process, and power does not fail here
    if not steps.number:
        return
    for name in ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir"):
        steps.around("file", os, name, lambda *args, **_: " ".join(str(a)[-60:] for a in args))
    for name in ("start_run", "record_source", "record_usage", "finish_run"):
        if hasattr(warehouse.ops, name):
            steps.around("record", warehouse.ops, name)
    load = warehouse.load.load

    def stepwise(*args: Any, **kwargs: Any) -> Any:
        steps.step("load", "begins")
        return load(*args, **kwargs, after_step=lambda name: steps.step("load", name))

    warehouse.load.load = stepwise


def _nap(seconds: float) -> None:
    time.sleep(min(seconds, 0.004))


def _arrange_salesforce(order: dict[str, Any], steps: Steps) -> None:
    import connectors.salesforce.client
    import connectors.salesforce.extract
    from connectors.http import RetryPolicy
    from connectors.salesforce import bulk
    from connectors.salesforce.transport import TSession

    quick = {"base": 0.002, "cap": 0.004, "sleep": _nap}
    defaults = RetryPolicy()
    RetryPolicy.__init__.__defaults__ = tuple(  # type: ignore[attr-defined]
        quick.get(name, getattr(defaults, name)) for name in ("tries", "base", "cap", "longest", "sleep")
    )
    bulk.STREAMS = order.get("streams", 1)
    connectors.salesforce.extract.BULK_FROM = order.get("bulk_from", 6)
    if steps.number:
        steps.around("request", TSession, "request", lambda self, method, url, **_: f"{method} {url.split('/services/')[-1][:90]}")


def _arrange_hubspot(order: dict[str, Any], steps: Steps) -> None:
    """sizes: of pages and batches, by their names in connectors.hubspot.objects; streams: threads of the client."""
    from connectors.hubspot import client, reading

    client.POLICY = replace(client.POLICY, base=0.002, cap=0.004, sleep=_nap)  # the windows of pace.py sleep by it too
    assert client.THREADS
    client.THREADS = order.get("streams", 1)
    for name, size in order.get("sizes", {}).items():
        assert hasattr(reading, name), name
        setattr(reading, name, size)
    if steps.number:
        steps.around("request", client.Client, "_send", lambda self, method, path, *_: f"{method} {path[:90]}")


def _child(order: dict[str, Any], out: int) -> None:
    kill = order.get("kill") or {}
    steps = Steps(out, kill.get("kind"), kill.get("number", 0))
    answer: dict[str, Any] = {"status": "done", "errors": {}, "deals": {}}
    try:
        _arrange(order, steps)
        from flows.errors import PlumblineError
        from flows.run import open_run
        from flows.settings import load_settings
        from flows.sync import sync

        now = datetime.fromisoformat(order["now"])
        try:
            with open_run(order["flow"], load_settings(Path(order["config"])), now) as run:
                if order["flow"] == "reconcile":
                    from flows.reconcile import reconcile

                    compared = reconcile(run)
                    answer["errors"] = {outcome.source: outcome.error for outcome in compared.sources if outcome.error}
                    answer["document"] = compared.document()
                else:
                    synced = sync(run, full=order.get("full", False))
                    answer["errors"], answer["document"] = synced.errors, synced.document()
        except PlumblineError as error:
            answer["errors"] = {"": str(error)}
        if answer["errors"]:
            answer["status"] = "failed"
    except BaseException:
        answer = {"status": "defect", "trace": traceback.format_exc()}
    answer["steps"] = steps.counts
    answer["cpu"] = time.process_time()
    os.write(out, json.dumps(answer, default=str).encode())


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in (*OF_CRM[sys.argv[1]], *PRELOADED):
        import_module(module)
    if threading.active_count() > 1:
        raise SystemExit("The process that starts syncs must have no threads: a fork would lose them")

    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                _child(order, writing)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        answer = json.loads(said) if said else {"status": "defect", "trace": f"the process ended with {status} and said nothing"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
