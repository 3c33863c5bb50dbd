"""Draws the deals of the simulated company: who, when, along which stages, how it ends, and which defects are planted.

Plain numpy, one array element per deal. Time is in days, as a float, relative to the last local midnight before `now`:
0 is the start of today, -730 the day on which the CRM was introduced. `company_events` turns these into instants in business hours.

Open deals are drawn after the closed ones, against what the won deals show (dwell per stage, length of the cycle), so that a
deal without planted defect stays well inside what a rule may measure and a planted one is well outside. "Well" is a margin of
about a quarter: the rules' percentiles depend on pipeline, band and sample size, and the simulated company must be judged
alike by each sensible reading of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

HISTORY_DAYS = 730
OPEN, WON, LOST = 0, 1, 2
PRE, QUALIFIED, DISCOVERY, PROPOSAL, NEGOTIATION = range(5)
CANONICAL = ("prequalified", "qualified", "discovery", "proposal", "negotiation")

# What people do within a deal, in order. Each slot may hold several CRM stages (`Stages.slots`); regressions and reopenings are
# later visits of the same stages.
SLOTS = ("pre", "qual", "disc", "prop", "disc_again", "prop_again", "neg", "lost_first", "reopened")
SLOT_STAGE = np.array([PRE, QUALIFIED, DISCOVERY, PROPOSAL, DISCOVERY, PROPOSAL, NEGOTIATION, -1, PROPOSAL])
SLOT_OF_STAGE = np.array([0, 1, 2, 3, 6])
MEDIAN_DWELL = np.array([6.0, 12.0, 22.0, 15.0, 11.0, 7.0, 12.0, 20.0, 11.0])
PRESENCE = np.array([0.35, 0.93, 0.94, 0.94, 0.05, 0.05, 0.91, 0.0, 0.0])

# Days used where a company has too few won deals for percentiles of its own, as rule sets commonly do.
DEFAULT_DWELL = np.array([30.0, 30.0, 45.0, 30.0, 30.0])
SILENT_DAYS = np.array([21, 21, 21, 14, 10])

# defect: weight among open deals, lowest and highest stage in which it is a defect
OPEN_DEFECTS: dict[str, tuple[float, int, int]] = {
    "close_date_past": (18, PRE, NEGOTIATION),
    "no_recent_activity": (18, QUALIFIED, NEGOTIATION),
    "stage_dwell": (14, QUALIFIED, NEGOTIATION),
    "next_step_empty": (11, QUALIFIED, NEGOTIATION),
    "over_aged": (8, PRE, NEGOTIATION),
    "amount_missing_or_zero": (8, DISCOVERY, NEGOTIATION),
    "single_threaded": (8, PROPOSAL, NEGOTIATION),
    "no_contact": (7, DISCOVERY, NEGOTIATION),
    "close_date_pushed": (6, QUALIFIED, NEGOTIATION),
    "owner_not_working": (6, PRE, NEGOTIATION),
    "exit_qualified": (5, DISCOVERY, NEGOTIATION),
    "next_step_stale": (5, QUALIFIED, NEGOTIATION),
}
NORMAL, HAPPY_EARS, SANDBAGGER, HOARDER = range(4)
STYLES = ("normal", "happy_ears", "sandbagger", "hoarder")


@dataclass
class Sellers:
    """One element per seller, teams contiguous, the first of each team there from the start to now."""

    team: Ints
    style: Ints
    joined: Floats
    left: Floats
    """inf: still there"""


@dataclass
class Pipelines:
    """What the draw must know of the pipelines: per pipeline its share by team, stages present, size of deals."""

    share_by_team: Floats
    """(teams, pipelines), rows sum to 1"""
    has: Flags
    """(pipelines, 5): which canonical stages exist"""
    size: Floats
    """factor on the amount"""
    unmapped: Flags
    """has a discovery stage that no word explains"""


@dataclass
class Accounts:
    """One element per account, teams contiguous."""

    team: Ints
    segment: Ints
    """0 small, 1 middle, 2 enterprise"""
    rate: Floats
    """currency units per home unit of its usual currency"""
    contacts: Ints
    """number of contacts, at least 5"""
    created: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass
class Deals:
    """One element per deal, in order of creation. -1 is none for indexes; times in days before today's start (module docstring)."""

    status: Ints
    pipeline: Ints
    team: Ints
    owner: Ints
    account: Ints
    created: Floats
    end: Floats
    """closing instant; 0 while open"""
    dwell: Floats
    """(deals, slots) days per slot, NaN where the slot is not visited"""
    stage: Ints
    """canonical stage of open deals, else the last open one"""
    amount: Floats
    """in the deal's currency"""
    style: Ints
    contacts: Ints
    close_day: Ints
    """day of the present close date, whole days from today"""
    pushes: Ints
    defects: dict[str, Flags]
    silent_since: Floats
    """no touch by anyone after this; inf where people are at work"""
    next_step_at: Floats
    """last change of the next step of open deals; NaN: see next_step_empty"""
    stop: Floats
    """nothing happens to the record after this: deleted or merged then; inf otherwise"""
    merged_into: Ints
    deleted: Flags

    def __len__(self) -> int:
        return len(self.status)


def draw_deals(
    rng: np.random.Generator, *, deals: int, sellers: Sellers, pipelines: Pipelines, accounts: Accounts, teams: Floats, merges: bool,
    ownerless: bool,
) -> Deals:  # fmt: skip
    """`deals` deals. teams: share of the deals by team. merges: whether this CRM merges deals; ownerless: whether some have no owner.

    Sets `accounts.created` too.
    """
    n_open = max(round(deals * 0.22), min((deals + 1) // 2, 40))
    n_won = round((deals - n_open) * 0.29)
    status = rng.permutation(np.repeat([OPEN, WON, LOST], [n_open, n_won, deals - n_open - n_won])).astype(np.int64)
    team = rng.choice(len(teams), deals, p=teams)
    pipeline = _by_row(rng, pipelines.share_by_team[team])
    account = _within_team(rng, team, accounts.team)
    speed = rng.lognormal(0, 0.25, deals) * np.array([0.88, 1.0, 1.2])[accounts.segment[account]]

    last = _last_stage(rng, status, pipelines.has[pipeline])
    dwell = _paths(rng, status, last, speed, pipelines.has[pipeline])
    total = np.nansum(dwell, axis=1)
    dwell *= np.minimum(1.0, 600 / np.maximum(total, 1e-9))[:, None]
    total = np.nansum(dwell, axis=1)
    closed = status != OPEN
    created = np.where(closed, -HISTORY_DAYS + (HISTORY_DAYS - 2 - total) * rng.random(deals) ** 0.72, -total)
    end = np.where(closed, created + total, 0.0)
    owner = _owners(rng, _within_team(rng, team, sellers.team), team, created, end, sellers)
    style = sellers.style[owner]
    _sandbag(rng, dwell, (status == WON) & (style == SANDBAGGER))

    base = np.exp(np.log([8_500.0, 26_000.0, 88_000.0])[accounts.segment[account]] + rng.normal(0, 0.6, deals)) * pipelines.size[pipeline]
    won = status == WON
    limits = _limits(dwell[won], pipeline[won], base[won], len(pipelines.has))
    opened = ~closed
    defects = _plan_defects(rng, opened, last, style, pipelines.unmapped[pipeline])
    if n_won < 15:
        defects["single_threaded"][:] = False  # nothing to say which amount is large
    _shape_open(rng, dwell, last, pipeline, opened, defects, limits)
    total = np.nansum(dwell, axis=1)
    created = np.where(opened, -total, created)

    order = np.argsort(created, kind="stable")
    status, pipeline, team, account, owner, last = (a[order] for a in (status, pipeline, team, account, owner, last))
    dwell, created, end, base = dwell[order], created[order], end[order], base[order]
    opened, closed, won = status == OPEN, status != OPEN, status == WON
    defects = {name: flags[order] for name, flags in defects.items()}

    # Open deals moved with their defects, some to before their owner had joined.
    owner = _owners(rng, owner, team, created, end, sellers)
    _leave_behind(rng, owner, created, opened, defects, sellers, nobody=ownerless)
    style = np.where(owner >= 0, sellers.style[owner], NORMAL)

    base = np.where(defects["single_threaded"], np.maximum(base, limits.median_amount * rng.uniform(1.5, 4, deals)), base)
    step = np.select([base > 60_000, base > 10_000, base > 2_000], [1_000.0, 500.0, 100.0], 50.0)
    home = np.maximum(np.round(base / step), 1) * step
    amount = np.round(home * accounts.rate[account] / 10) * 10
    nothing = np.where(rng.random(deals) < 0.3, 0.0, np.nan)
    amount = np.where(defects["amount_missing_or_zero"], nothing, amount)
    amount = np.where((status == LOST) & (last <= QUALIFIED) & (rng.random(deals) < 0.3), np.nan, amount)

    contacts = _contact_counts(rng, last, won, accounts.segment[account], defects, accounts.contacts[account])
    close_day, pushes = _close_days(rng, status, last, created, end, style, defects)
    silent_since, next_step_at = _silences(rng, dwell, last, created, opened, defects)
    _close_badly(rng, status, end, close_day, defects)

    deleted, stop = _delete(rng, created, end, opened, defects, days=13 if not merges else 80)
    merged_into = np.full(deals, -1)
    if merges:
        _merge(rng, account, created, status, defects, deleted, stop, merged_into)
    defects = {name: flags & ~deleted for name, flags in defects.items()}

    accounts.created = np.full(len(accounts.team), np.inf)
    np.minimum.at(accounts.created, account, created)
    unused = ~np.isfinite(accounts.created)
    accounts.created[unused] = rng.uniform(-HISTORY_DAYS, -5, unused.sum())
    accounts.created = np.maximum(accounts.created - rng.exponential(25, len(accounts.team)), -HISTORY_DAYS - 10)

    return Deals(
        status, pipeline, team, owner, account, created, end, dwell, last, amount, style, contacts, close_day, pushes,
        defects, silent_since, next_step_at, stop, merged_into, deleted,
    )  # fmt: skip


@dataclass
class _Limits:
    """What won deals show. (pipelines, 5) for dwell; lowest and highest over each population that a rule may compare with."""

    dwell_low: Floats
    dwell_high: Floats
    age_low: float
    age_high: float
    median_amount: float


def _limits(dwell: Floats, pipeline: Ints, base: Floats, pipelines: int) -> _Limits:
    low, high = np.tile(DEFAULT_DWELL, (pipelines, 1)), np.tile(DEFAULT_DWELL, (pipelines, 1))
    for stage in range(5):
        columns = dwell[:, stage == SLOT_STAGE]
        everyone = columns[np.isfinite(columns)]
        for p in range(pipelines):
            own = columns[pipeline == p]
            own = own[np.isfinite(own)]
            for population in (everyone, own):
                if len(population) >= 20:
                    p90 = np.quantile(population, 0.9)
                    low[p, stage], high[p, stage] = min(low[p, stage], p90), max(high[p, stage], p90)
    cycle = np.nansum(dwell, axis=1)
    ages = [365.0] if len(cycle) < 60 else []  # with fewer, nothing but a usual year may be there to compare with
    medians = [float(np.median(base))] if len(base) else [20_000.0]
    bands = np.digitize(base, np.quantile(base, [1 / 3, 2 / 3])) if len(base) >= 20 else np.zeros(len(base), int)
    for p in [-1, *range(pipelines)]:  # -1: all of them
        own_deals = (pipeline == p) | (p == -1)
        if 15 <= len(cycle) < 60 and own_deals.any():
            ages.append(3 * float(np.median(cycle[own_deals])))
        if own_deals.sum() >= 20:
            ages.append(float(np.quantile(cycle[own_deals], 0.95)))
            medians.append(float(np.median(base[own_deals])))
        for band in range(3):
            chosen = own_deals & (bands == band)
            if chosen.sum() >= 20:
                ages.append(float(np.quantile(cycle[chosen], 0.95)))
    return _Limits(low, high, min(ages), max(ages), max(medians))


def _by_row(rng: np.random.Generator, shares: Floats) -> Ints:
    """One column index per row, drawn with that row's probabilities."""
    return (rng.random(len(shares))[:, None] > np.cumsum(shares, axis=1)[:, :-1]).sum(axis=1)


def _within_team(rng: np.random.Generator, team: Ints, member_team: Ints) -> Ints:
    """An index into the members, which lie contiguous by team, out of the team of each element."""
    first = np.searchsorted(member_team, np.arange(member_team.max() + 2))
    return first[team] + (rng.random(len(team)) * (first[team + 1] - first[team])).astype(np.int64)


def _owners(rng: np.random.Generator, owner: Ints, team: Ints, created: Floats, end: Floats, sellers: Sellers) -> Ints:
    """The owners, but where one was not there from the deal's creation to its end another one of the team who was."""
    owner = owner.copy()
    for _ in range(4):
        wrong = np.flatnonzero((sellers.joined[owner] > created) | (sellers.left[owner] < end + (end == 0)))
        if not len(wrong):
            return owner
        owner[wrong] = _within_team(rng, team[wrong], sellers.team)
    wrong = np.flatnonzero((sellers.joined[owner] > created) | (sellers.left[owner] < end + (end == 0)))
    owner[wrong] = np.searchsorted(sellers.team, team[wrong])
    return owner


def _leave_behind(
    rng: np.random.Generator, owner: Ints, created: Floats, opened: Flags, defects: dict[str, Flags], sellers: Sellers, *, nobody: bool
) -> None:
    """Give the planned deals to sellers who left after the deal was created; with `nobody`, some to nobody (-1).

    A deal that was created after the last one left passes its defect on to a sound deal that is older.
    """
    planned = defects["owner_not_working"]
    gone = np.flatnonzero(np.isfinite(sellers.left))
    last = sellers.left[gone].max(initial=-np.inf)
    wanted = np.flatnonzero(opened & planned)
    orphaned = wanted[rng.random(len(wanted)) < (0.3 if nobody else 0.0)]
    owner[orphaned] = -1
    left = np.setdiff1d(wanted, orphaned)
    young = left[created[left] > last - 2]
    sound = opened & ~np.logical_or.reduce(list(defects.values()))
    instead = rng.permutation(np.flatnonzero(sound & (created < last - 2)))[: len(young)]
    planned[young] = False
    planned[instead] = True
    for deal in np.concatenate([np.setdiff1d(left, young), instead]):
        former = gone[(sellers.left[gone] > created[deal] + 1) & (sellers.joined[gone] < created[deal])]
        if len(former):
            owner[deal] = rng.choice(former)
        else:
            planned[deal] = False


def _last_stage(rng: np.random.Generator, status: Ints, has: Flags) -> Ints:
    """The stage in which the deal is (open), was when it was lost, or from which it was won."""
    n = len(status)
    lost = rng.choice(5, n, p=[0.12, 0.26, 0.30, 0.20, 0.12])
    now = rng.choice(5, n, p=[0.10, 0.22, 0.30, 0.21, 0.17])
    last = np.select([status == OPEN, status == LOST], [now, lost], NEGOTIATION)
    return np.where((last == PRE) & ~has[:, PRE], QUALIFIED, last)


def _paths(rng: np.random.Generator, status: Ints, last: Ints, speed: Floats, has: Flags) -> Floats:
    n = len(status)
    visited = rng.random((n, len(SLOTS))) < PRESENCE
    stage = np.where(SLOT_STAGE < 0, PROPOSAL, SLOT_STAGE)
    visited &= has[:, stage]
    visited &= stage[None, :] <= last[:, None]
    rows = np.arange(n)
    visited[rows, SLOT_OF_STAGE[last]] = True
    # Going back to discovery means having been in a proposal, and coming back to one.
    regressed = visited[:, 4] & (last >= PROPOSAL) & (status != OPEN)
    visited[:, 4] = visited[:, 5] = regressed
    visited[:, 3] |= regressed
    reopened = (status != OPEN) & (last >= PROPOSAL) & (rng.random(n) < 0.03)
    visited[:, 7] = visited[:, 8] = reopened
    dwell = MEDIAN_DWELL * rng.lognormal(0, 0.5, (n, len(SLOTS))) * speed[:, None]
    dwell[rows, SLOT_OF_STAGE[last]] *= np.where(status == LOST, 1.4, 1.0)
    return np.where(visited, np.maximum(dwell, 0.4), np.nan)


def _sandbag(rng: np.random.Generator, dwell: Floats, chosen: Flags) -> None:
    """The whole cycle is shown as qualified; the rest follows in the last days before the win."""
    rows = np.flatnonzero(chosen)
    total = np.nansum(dwell[rows], axis=1)
    late = rng.uniform(0.5, 4, len(rows))
    dwell[rows] = np.nan
    dwell[rows, 1] = np.maximum(total - late, 1)
    dwell[rows, 6] = late


def _plan_defects(rng: np.random.Generator, opened: Flags, stage: Ints, style: Ints, can_be_unmapped: Flags) -> dict[str, Flags]:
    n = len(stage)
    names = list(OPEN_DEFECTS)
    weight = np.array([w for w, _, _ in OPEN_DEFECTS.values()], dtype=float)
    low, high = (np.array([limits[i] for limits in OPEN_DEFECTS.values()]) for i in (1, 2))
    planned = {name: np.zeros(n, bool) for name in [*names, "stage_unmapped", "exit_closed_lost", "state_inconsistent"]}

    rows = np.flatnonzero(opened)
    luck = rng.random(len(rows))
    hoards = style[rows] == HOARDER
    count = np.select([luck < np.where(hoards, 0.2, 0.61), luck < np.where(hoards, 0.6, 0.88), luck < 0.965], [0, 1, 2], 3)
    allowed = (stage[rows][:, None] >= low) & (stage[rows][:, None] <= high)
    taste = np.where(hoards[:, None] & np.isin(names, ["over_aged", "stage_dwell", "no_recent_activity"]), 4.0, 1.0) * weight
    # The largest of u^(1/w) is a draw by weight, the next largest one without replacement.
    keys = np.where(allowed, rng.random((len(rows), len(names))) ** (1 / taste), -1)
    rank = np.argsort(np.argsort(-keys, axis=1), axis=1)
    chosen = allowed & (rank < np.minimum(count, 2)[:, None])
    for j, name in enumerate(names):
        planned[name][rows] = chosen[:, j]
    zombies = rows[(count == 3) & (stage[rows] >= QUALIFIED)]
    for name in ("no_recent_activity", "stage_dwell", "close_date_past", "next_step_empty"):
        planned[name][zombies] = True

    # Nobody can be the only contact and absent, and an empty next step is not an old one.
    planned["single_threaded"] &= ~planned["no_contact"] & ~planned["amount_missing_or_zero"]
    planned["next_step_stale"] &= ~planned["next_step_empty"]
    planned["exit_qualified"] |= planned["no_contact"]
    unmapped = rows[can_be_unmapped[rows] & (stage[rows] == DISCOVERY)]
    unmapped = unmapped[np.argsort(rng.random(len(unmapped)))][: max(3, round(len(rows) * 0.012))]
    for flags in planned.values():
        flags[unmapped] = False  # no rule but those on state can judge a stage that nobody has mapped
    planned["stage_unmapped"][unmapped] = True
    return planned


def _shape_open(
    rng: np.random.Generator, dwell: Floats, stage: Ints, pipeline: Ints, opened: Flags, defects: dict[str, Flags], limits: _Limits
) -> None:
    """Set the dwell of open deals: present stage and age within what won deals show, but for the planted ones."""
    rows = np.flatnonzero(opened)
    stages, pipes = stage[rows], pipeline[rows]
    current = SLOT_OF_STAGE[stages]
    here = np.arange(len(rows))
    mine = dwell[rows]
    mine[:, 4:6] = np.nan
    mine[:, 7:] = np.nan
    mine[here, current] = 0.0
    before = np.nansum(mine, axis=1)

    low, high = limits.dwell_low[pipes, stages], limits.dwell_high[pipes, stages]
    stuck, aged = defects["stage_dwell"][rows].copy(), defects["over_aged"][rows]
    now = rng.uniform(2.2, np.maximum(low * 0.72, 3))
    now = np.where(stuck, high * rng.uniform(1.35, 1.9, len(rows)) + 4, now)
    young = limits.age_low * 0.8
    # Stuck for longer than won deals live at all: then it is over-aged too.
    hopeless = stuck & ~aged & (now > young * 0.85)
    now = np.where(hopeless, np.minimum(now, np.maximum(young * 0.85, high * 1.3 + 3)), now)
    aged = aged | (hopeless & (now > young * 0.85))
    room = np.where(aged, np.inf, np.maximum(young - now, 0.5))
    shrink = np.minimum(1.0, room * rng.uniform(0.7, 1.0, len(rows)) / np.maximum(before, 1e-9))
    mine *= shrink[:, None]
    before *= shrink
    # An over-aged deal has spent its time in the stage before; without one it is stuck where it is.
    least = limits.age_high * 1.25
    age = least + np.maximum(660 - least, 30) * rng.random(len(rows)) ** 1.7
    extra = np.where(aged, np.maximum(age - before - now, 0), 0)
    earlier = np.where(np.isfinite(mine), np.arange(len(SLOTS)), -1)
    earlier[here, current] = -1
    previous = earlier.max(axis=1)
    moved = aged & (previous >= 0)
    mine[here[moved], previous[moved]] += extra[moved]
    still = aged & (previous < 0)
    now = np.where(still, now + extra, now)
    defects["stage_dwell"][rows] = stuck | (still & (stages >= QUALIFIED))
    defects["over_aged"][rows] = aged
    # Silence needs a deal older than the silence.
    mine[here, current] = now
    total = np.nansum(mine, axis=1)
    too_young = defects["no_recent_activity"][rows] & (total < SILENT_DAYS[stages] + 9)
    grow = np.where(too_young, SILENT_DAYS[stages] + 9 + rng.uniform(0, 6, len(rows)) - total, 0)
    grown = too_young & (total + grow <= young) & (previous >= 0)
    mine[here[grown], previous[grown]] += grow[grown]
    total = np.nansum(mine, axis=1)
    for name, youngest in (
        ("no_recent_activity", SILENT_DAYS[stages] + 8),
        ("next_step_stale", SILENT_DAYS[stages] * 1.3 + 4),
        ("close_date_pushed", 40),
        ("close_date_past", 11),
        ("next_step_empty", 6),
    ):
        defects[name][rows] &= total >= youngest
    dwell[rows] = mine


def _contact_counts(
    rng: np.random.Generator, last: Ints, won: Flags, segment: Ints, defects: dict[str, Flags], available: Ints
) -> Ints:
    n = len(last)
    early = 1 + (rng.random(n) < 0.4)
    middle = 1 + rng.binomial(2, 0.5, n)
    late = 2 + rng.binomial(2, 0.35, n) + (segment == 2)
    count = np.select([last <= QUALIFIED, last == DISCOVERY], [early, middle], late)
    count = np.where(won, np.maximum(count, 2), count)
    count = np.minimum(count, available)
    return np.where(defects["no_contact"], 0, np.where(defects["single_threaded"], 1, count))


def _close_days(
    rng: np.random.Generator, status: Ints, last: Ints, created: Floats, end: Floats, style: Ints, defects: dict[str, Flags]
) -> tuple[Ints, Ints]:
    """Day of the present close date and how often it was pushed."""
    n = len(status)
    soon, late = np.array([60, 40, 25, 15, 11])[last], np.array([150, 120, 95, 65, 45])[last]
    ahead = rng.uniform(soon, late)
    # Past by several working days: some give signatures a day of grace.
    past = -rng.uniform(5, np.clip(-created - 4, 5.5, 75))
    day = np.floor(np.select([status != OPEN, defects["close_date_past"]], [end, past], ahead)).astype(np.int64)
    habit = np.select([style == HAPPY_EARS, style == HOARDER], [1.1, 0.8], 0.25)
    pushes = rng.poisson(np.where(status == OPEN, np.minimum(habit, 0.3), habit + 0.15))
    pushes = np.where((status == OPEN) & ~defects["over_aged"], np.minimum(pushes, 1), pushes)
    pushes = np.where(defects["close_date_pushed"] | defects["over_aged"], rng.integers(3, 6, n), pushes)
    return day, np.minimum(pushes, 5)


def _silences(
    rng: np.random.Generator, dwell: Floats, stage: Ints, created: Floats, opened: Flags, defects: dict[str, Flags]
) -> tuple[Floats, Floats]:
    """Since when nobody touched a deal, and when its next step was last written."""
    days = SILENT_DAYS[stage]
    longest = np.minimum(days * 3.2, -created - 1.5)
    silent = -rng.uniform(np.minimum(days + 4.5, longest), np.maximum(longest, days + 5))
    silent_since = np.where(opened & defects["no_recent_activity"], np.maximum(silent, created + 0.3), np.inf)
    fresh = -rng.uniform(0.3, np.minimum(np.array([8, 8, 8, 6, 4.5])[stage], -created * 0.9))
    stale = -rng.uniform(days * 1.3 + 2, np.maximum(np.minimum(days * 3, -created - 0.5), days * 1.3 + 2.5))
    at = np.where(defects["next_step_stale"], np.maximum(stale, created + 0.1), fresh)
    at = np.where(np.isfinite(silent_since), np.minimum(at, silent_since), at)
    return silent_since, np.where(opened & ~defects["next_step_empty"], at, np.nan)


def _close_badly(rng: np.random.Generator, status: Ints, end: Floats, close_day: Ints, defects: dict[str, Flags]) -> None:
    """Plant what is wrong with closed deals, among those closed in the last eighty days: older ones are history."""
    recent = end > -80
    lost = (status == LOST) & recent
    defects["exit_closed_lost"] |= lost & (rng.random(len(status)) < 0.2)
    candidates = rng.permutation(np.flatnonzero((status == WON) & recent))
    late = candidates[: max(2, round(len(candidates) * 0.06))]
    close_day[late] = rng.integers(6, 50, len(late))
    defects["state_inconsistent"][late] = True


def _delete(
    rng: np.random.Generator, created: Floats, end: Floats, opened: Flags, defects: dict[str, Flags], days: int
) -> tuple[Flags, Floats]:
    """A hundredth of the deals, deleted within the last `days`: a CRM empties its recycle bin, older ones left no trace."""
    n = len(created)
    sound = ~np.logical_or.reduce(list(defects.values()))
    fit = np.flatnonzero(sound & (created < -days - 4) & (opened | (end < -days - 1)))
    gone = rng.permutation(fit)[: max(round(n * 0.01), 2)]
    deleted, stop = np.zeros(n, bool), np.full(n, np.inf)
    deleted[gone] = True
    stop[gone] = -rng.uniform(0.6, days, len(gone))
    return deleted, stop


def _merge(
    rng: np.random.Generator, account: Ints, created: Floats, status: Ints, defects: dict[str, Flags], deleted: Flags, stop: Floats,
    merged_into: Ints,
) -> None:  # fmt: skip
    """A hundredth of the deals turned out to be another deal of the same account and were merged into it."""
    sound = ~np.logical_or.reduce(list(defects.values()))
    order = np.lexsort((created, account))
    pairs = np.flatnonzero(account[order[:-1]] == account[order[1:]])[::2]
    survivor, loser = order[pairs], order[pairs + 1]
    fit = ~deleted[survivor] & ~deleted[loser] & sound[loser] & (status[loser] != WON) & (created[loser] < -4)
    survivor, loser = survivor[fit], loser[fit]
    unique = ~np.isin(survivor, loser)
    survivor, loser = survivor[unique], loser[unique]
    some = rng.permutation(len(loser))[: max(round(len(account) * 0.01), 2)]
    survivor, loser = survivor[some], loser[some]
    at = np.minimum(created[loser] + rng.uniform(1.5, 20, len(loser)), -0.6)
    merged_into[loser] = survivor
    deleted[loser] = True
    stop[loser] = np.maximum(at, created[loser] + 0.7)
