"""What the end-to-end tests share: a small simulated company, its configuration, and how its CRMs compare with the warehouse."""

from datetime import UTC, datetime
from decimal import Decimal

from connectors.simulator.scenario import truth
from connectors.simulator.server import Simulator
from flows.demo import CONFIG, _environment
from flows.run import open_run
from flows.settings import load_settings

NIGHT_1 = datetime(2026, 3, 9, 23, 30, tzinfo=UTC)  # half past midnight on Tuesday, in the company's zone
WORKDAY = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
NIGHT_2 = datetime(2026, 3, 10, 23, 30, tzinfo=UTC)
NIGHT_3 = datetime(2026, 3, 11, 22, 30, tzinfo=UTC)  # the same business day as night 2


def company(**sizes):
    return Simulator(None, **{"seed": 3, "salesforce_deals": 500, "hubspot_deals": 350, "now": NIGHT_1, **sizes})


def configuration(directory, sim, extra=""):
    """Write the demo's configuration for `sim` into `directory`. Credentials are in the environment inside `_environment(sim)`."""
    file = directory / "plumbline.toml"
    file.write_text(CONFIG.format(salesforce=sim.salesforce_url, hubspot=sim.hubspot_url) + extra, encoding="utf-8")
    return file


def run_flow(file, flow, now):
    """One flow as its command runs it: settings read again, the warehouse opened and closed."""
    with open_run(flow.__name__, load_settings(file), now) as run:
        return flow(run)


def differences(sim, con, never_seen=frozenset()):
    """What the warehouse holds otherwise than the CRMs, by the simulators' own state: (source, id, what the CRM has, what we have).

    never_seen: deals that were merged away before the first night; HubSpot's API shows nothing of them but their id.
    """
    found = []
    for crm, source in (("salesforce", "sales"), ("hubspot", "inbound")):
        deals = truth(sim)[crm]
        rows = con.execute(
            "select opportunity_id, amount, crm_stage, owner_id, is_deleted, merged_into from core.opportunity where source = ?", [source]
        ).fetchall()
        ours = {row[0]: row[1:] for row in rows}
        for id_, deal in deals.items():
            theirs = (
                deal.amount if deal.amount is None else Decimal(deal.amount).quantize(Decimal("0.01")),
                deal.stage,
                deal.owner,
                deal.is_deleted,
                f"{source}:{deal.merged_into}" if deal.merged_into else None,
            )
            held = ours.get(id_)
            if held is None and id_ in never_seen:
                continue
            # A deal that went keeps in the warehouse what it last was; that it went, and where to, is what must be right.
            if held is None or (held[3:] != theirs[3:]) or (not deal.is_deleted and held != theirs):
                found.append((source, id_, theirs, held))
        # What the CRM no longer has at all (deleted for good) must not look alive.
        found += [(source, id_, None, held) for id_, held in ours.items() if id_ not in deals and not held[3]]
    return found


def merged_away(sim):
    """Ids of HubSpot deals that no longer are what they were: merged into others."""
    return frozenset(id_ for id_, deal in truth(sim)["hubspot"].items() if deal.merged_into)


__all__ = ["NIGHT_1", "NIGHT_2", "NIGHT_3", "WORKDAY", "_environment", "company", "configuration", "differences", "merged_away", "run_flow"]
