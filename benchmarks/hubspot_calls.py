"""What HubSpot's limits cost: `python benchmarks/hubspot_calls.py [DEALS]`.

A portal of DEALS (100,000) deals with their history, contacts and companies, synced by Plumbline three times: first, after a working day
of 1 % changes (1,000), and when nothing has happened since. Counted by the simulated portal, as HubSpot counts them. Beside it

- the least that the API allows for what was landed: a page of 50 deals with history (100 archived ones without), 200 found by a search,
  a batch of 50 with history for each changed deal, 100 companies a page, associations of 1,000 deals at once;
- the seconds that either number of calls takes at the documented limits of a paid portal: 190 calls per ten seconds, 5 searches a second,
  the two at the same time;
- the seconds that the sync took here, with the limits lifted and the simulator on the same machine. No test: a table to look at.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

NIGHTS = [datetime(2026, 11, 20, 1, 0, tzinfo=UTC) + timedelta(days=n) for n in range(3)]
TITLES = ["first sync", "a night with {changes:,} changes", "a night with none"]
PER_10S, SEARCHES_PER_SECOND = 190, 5
CONFIG = """
[sources.big]
crm = "hubspot"
base_url = "{url}"
access_token = "${{TOKEN}}"
quota_share = 1.0
"""


def serve(deals: int, pipe: Any) -> None:
    """The portal, told through the pipe what to do: ("night", n), ("changes", n), ("calls",), ("sizes",)."""
    from connectors.simulator.server import Simulator

    with Simulator(None, now=NIGHTS[0], crms=("hubspot",), salesforce_deals=1, hubspot_deals=deals) as sim:
        portal, log = sim.hubspot, sim.servers["hubspot"].app.state.requests
        portal.limits.lift()
        pipe.send((sim.hubspot_url, {"TOKEN": portal.access.access_token}))
        while (order := pipe.recv())[0] != "stop":
            answer: Any = None
            if order[0] == "night":
                sim.clock.set(NIGHTS[order[1]])
            elif order[0] == "changes":
                sim.clock.set(NIGHTS[1] - timedelta(hours=10))
                answer = change(portal, order[1])
            elif order[0] == "calls":
                answer = Counter(log.counts)
                log.clear()
            elif order[0] == "sizes":
                answer = sizes(portal)
            pipe.send(answer)


def change(portal: Any, count: int) -> None:
    """A working day: deals edited, some of them moved on; contacts attached; deals created and archived."""
    rows = portal.rows(
        f"""select _id from object_deals where _archived_at is null and _merged_into is null and hs_is_closed = 'false'
            order by md5(_id::varchar) limit {count}"""
    )
    ids = [str(row[0]) for row in rows]
    contact = str(portal.rows("select min(_id) from object_contacts")[0][0])
    for number, key in enumerate(ids[: count * 9 // 10]):
        portal.update("deals", key, {"hs_next_step": "Call on Monday"} | ({"closedate": "2027-03-31"} if number % 7 == 0 else {}))
    for key in ids[-count // 20 :]:
        portal.archive("deals", key)
    for number in range(count // 20):
        portal.create("deals", {"dealname": f"New {number}", "amount": "1000"}, [("contacts", contact)])


def sizes(portal: Any) -> dict[str, int]:
    counts = {
        "live": "from object_deals where _archived_at is null and _merged_into is null",
        "open": "from object_deals where _archived_at is null and _merged_into is null and hs_is_closed = 'false'",
        "archived": "from object_deals where _archived_at is not null and _merged_into is null",
        "companies": "from object_companies where _archived_at is null and _merged_into is null",
    }
    return {name: portal.rows(f"select count(*) {sql}")[0][0] for name, sql in counts.items()}


def least(number: int, size: Mapping[str, int], changes: int) -> tuple[int, int]:
    """(calls but searches, searches) that any client needs which misses nothing: the account, its owners, pipelines and properties;
    the bin, where archiving shows; what changed; who is attached to the open deals, which no stamp tells."""
    around, bin_ = 5, ceil(size["archived"] / 100)
    if number == 0:
        return around + ceil(size["archived"] / 50) + ceil(size["live"] / 50) + ceil(size["companies"] / 100), 0
    links = 2 * ceil(size["open"] / 1000)
    changed = changes if number == 1 else 0
    return around + bin_ + ceil(changed / 50) + links, max(1, ceil(changed / 200)) + 1  # and one for the companies


def seconds(calls: int, searches: int) -> float:
    """At the documented limits, if no call took any time."""
    return max(calls / PER_10S * 10, searches / SEARCHES_PER_SECOND)


def main() -> None:
    deals = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(deals, theirs), daemon=True)
    server.start()
    url, secrets = ours.recv()
    os.environ.update(secrets)

    def portal(*order: Any) -> Any:
        ours.send(order)
        return ours.recv()

    from connectors.hubspot import client
    from flows.run import open_run
    from flows.settings import load_settings
    from flows.sync import sync

    client.SEARCHES_PER_SECOND = 10_000  # pace is counted below, not waited for
    client.PER_10S = 1_000_000
    changes = deals // 100
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plumbline.toml"
        file.write_text(CONFIG.format(url=url))
        settings, detail = load_settings(file), {}
        print(f"{deals:,} deals with history; calls as the portal counts them; seconds at {PER_10S} calls per ten seconds, "
              f"{SEARCHES_PER_SECOND} searches per second\n")
        print(f"{'':<30}{'calls':>8}{'searches':>10}{'seconds':>9}   {'least calls':>12}{'searches':>10}{'seconds':>9}   {'took here':>10}")
        for number, now in enumerate(NIGHTS):
            if number == 1:
                portal("changes", changes)
            portal("night", number)
            portal("calls")
            size = portal("sizes")
            with open_run("benchmark", settings, now) as run:
                began = time.perf_counter()
                report = sync(run)
                took = time.perf_counter() - began
                report.raise_failures()
            detail[number] = counts = portal("calls")
            searches = sum(n for route, n in counts.items() if route.endswith("/search"))
            calls, (fewest, fewest_searches) = counts.total() - searches, least(number, size, changes)
            title = TITLES[number].format(changes=changes)
            print(
                f"{title:<30}{calls:>8,}{searches:>10,}{seconds(calls, searches):>9,.1f}   {fewest:>12,}{fewest_searches:>10,}"
                f"{seconds(fewest, fewest_searches):>9,.1f}   {took:>8,.1f} s", flush=True,
            )
    print(f"\n{', '.join(f'{n:,} {what}' for what, n in size.items())} at the end")
    for number, counts in detail.items():
        print(f"{TITLES[number].format(changes=changes)}:")
        for route, n in counts.most_common():
            print(f"    {n:>6,} {route}")
    ours.send(("stop",))
    server.join(20)


if __name__ == "__main__":
    main()
