"""How many API calls a night costs: `python benchmarks/api_calls.py [DEALS]`.

A company of DEALS (100,000) opportunities with everything around them, synced by Plumbline three times: first, after a working day of
1 % changes (1,000), and when nothing has happened since. Beside it, on the same org at the same moments, a plain pull by REST that asks
for the same fields of the same objects: a describe and pages of 2,000 records each; of everything, and of what carries a later stamp
than before (which misses what no stamp tells). All are counted by the simulated org: requests below /services/data/vXX.0/, as Salesforce
counts them. No test: a table to look at.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

NIGHTS = [datetime(2026, 11, 20, 1, 0, tzinfo=UTC) + timedelta(days=n) for n in range(3)]
TITLES = ["first sync", "a night with {changes:,} changes", "a night with none"]
CONFIG = """
[sources.big]
crm = "salesforce"
instance_url = "{url}"
client_id = "${{ID}}"
client_secret = "${{SECRET}}"
quota_share = 1.0
"""


def serve(deals: int, pipe) -> None:
    """The org, told through the pipe what to do: ("night", n), ("changes", n), ("calls",)."""
    from connectors.simulator.server import Simulator

    with Simulator(None, now=NIGHTS[0], crms=("salesforce",), salesforce_deals=deals, hubspot_deals=1) as sim:
        org = sim.salesforce
        pipe.send((sim.salesforce_url, {"ID": org.identity.client_id, "SECRET": org.identity.client_secret}))
        while (order := pipe.recv())[0] != "stop":
            answer: Any = None
            if order[0] == "night":
                sim.clock.set(NIGHTS[order[1]])
            elif order[0] == "changes":
                sim.clock.set(NIGHTS[1] - timedelta(hours=10))
                answer = change(org, order[1])
            elif order[0] == "calls":
                answer = Counter(_object(call.path) for call in org.request_log.calls if "/services/data/v" in call.path)
                org.request_log.clear()
            pipe.send(answer)


def change(org: Any, count: int) -> int:
    """A working day: deals edited, some of them moved on; calls logged, contacts attached, deals created and deleted."""
    rows = org.rows('select "Id", "AccountId" from "Opportunity" where not "IsDeleted" and not "IsClosed" order by md5("Id") limit ?', [count])
    most, moved, called, gone = rows[: count * 7 // 10], rows[: count // 10], rows[count * 7 // 10 : count * 9 // 10], rows[-count // 20 :]
    org.update_many("Opportunity", [{"Id": row[0], "NextStep": "Call on Monday"} for row in most])
    org.update_many("Opportunity", [{"Id": row[0], "CloseDate": "2027-03-31"} for row in moved])
    org.create_many("Task", [{"WhatId": row[0], "Subject": "Call", "Status": "Completed", "ActivityDate": "2026-11-20"} for row in called])
    org.create_many(
        "Opportunity",
        [{"Name": f"New {n}", "AccountId": row[1], "StageName": "Prospecting", "CloseDate": "2027-05-31"} for n, row in enumerate(gone)],
    )
    for row in gone:
        org.delete("Opportunity", row[0])
    return len(most) + len(called) + 2 * len(gone)


def _object(path: str) -> str:
    """Of which kind a call is: describes, queries (first pages and following), bulk jobs and their pages, the log of deletions."""
    kinds = {"/describe": "describes", "/deleted": "logs of deletions", "/results": "bulk result pages", "/jobs/": "bulk jobs"}
    found = next((kind for mark, kind in kinds.items() if mark in path), None)
    return found or ("queries and their pages" if "/query" in path else "other")


class Plain:
    """What an ordinary script does: describe, SELECT all of the fields, follow nextRecordsUrl."""

    def __init__(self, url: str, secrets: dict[str, str]) -> None:
        import requests

        self.url, self.session = url, requests.Session()
        sign_in = {"grant_type": "client_credentials", "client_id": secrets["ID"], "client_secret": secrets["SECRET"]}
        token = self.session.post(f"{url}/services/oauth2/token", data=sign_in, timeout=60).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.stamps: dict[str, str] = {}

    def pull(self, *, since: bool) -> None:
        from connectors.salesforce.objects import OBJECTS
        from connectors.salesforce.schema import COMPOUND

        for spec in OBJECTS:
            described = self._get(f"/services/data/v62.0/sobjects/{spec.name}/describe")
            names = [f["name"] for f in described["fields"] if f["type"] not in COMPOUND]
            names = [name for name in names if not spec.fields or name in spec.fields]
            cursor = next((name for name in spec.cursor if name in names), None)
            conditions = [spec.where] if spec.where else []
            if since and cursor and spec.name in self.stamps:
                conditions.append(f"{cursor} > {self.stamps[spec.name]}")
            where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
            more: str | None = f"/services/data/v62.0/queryAll?q=SELECT {', '.join(names)} FROM {spec.name}{where}"
            latest = self.stamps.get(spec.name, "")
            while more:
                page = self._get(more)
                if cursor:
                    latest = max([latest, *(record[cursor].replace("+0000", "Z") for record in page["records"])])
                more = page.get("nextRecordsUrl")
            if cursor and latest:
                self.stamps[spec.name] = latest

    def _get(self, path: str) -> dict[str, Any]:
        answer = self.session.get(self.url + path, timeout=600)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def main() -> None:
    deals = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(deals, theirs), daemon=True)
    server.start()
    url, secrets = ours.recv()
    os.environ.update(secrets)

    def org(*order: Any) -> Any:
        ours.send(order)
        return ours.recv()

    from flows.run import open_run
    from flows.settings import load_settings
    from flows.sync import sync

    changes = deals // 100
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plumbline.toml"
        file.write_text(CONFIG.format(url=url))
        settings = load_settings(file)
        plain, detail = Plain(url, secrets), {}
        print(f"{deals:,} opportunities; API calls as the org counts them\n")
        print(f"{'':<30}{'Plumbline':>12}{'plain REST, all':>18}{'plain REST, by stamp':>23}")
        for number, now in enumerate(NIGHTS):
            if number == 1:
                org("changes", changes)
            org("night", number)
            org("calls")
            with open_run("benchmark", settings, now) as run:
                report = sync(run)
                report.raise_failures()
            detail[number] = org("calls")
            plain.pull(since=True)
            by_stamp = org("calls")
            Plain(url, secrets).pull(since=False)
            everything = org("calls")
            title = TITLES[number].format(changes=changes)
            print(f"{title:<30}{detail[number].total():>12,}{everything.total():>18,}{by_stamp.total():>23,}", flush=True)
    print()
    for number, counts in detail.items():
        print(f"{TITLES[number].format(changes=changes)}: {', '.join(f'{n} {kind}' for kind, n in counts.most_common())}")
    ours.send(("stop",))
    server.join(20)


if __name__ == "__main__":
    main()
