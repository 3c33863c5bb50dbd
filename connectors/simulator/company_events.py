"""Turns drawn deals into what a CRM records: changes of fields, activities, contacts attached, each with an instant.

Works on a slice of the deals at a time, so that a million of them need no more memory than a hundred thousand. Everything is
numeric here: text (names, stages, next steps, subjects) is put in by SQL, by the numbers given.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from connectors.simulator.company_deals import (
    DISCOVERY,
    HAPPY_EARS,
    LOST,
    NEGOTIATION,
    OPEN,
    PRE,
    PROPOSAL,
    SLOT_OF_STAGE,
    SLOT_STAGE,
    WON,
    Deals,
    Flags,
    Floats,
    Ints,
)

# Fields of company.deal_change, by number; also the order of changes made at one instant.
FIELDS = ("stage", "probability", "forecast_category", "amount", "close_date", "owner", "next_step")
STAGE, PROBABILITY, FORECAST, AMOUNT, CLOSE_DATE, OWNER, NEXT_STEP = range(7)
CALL, EMAIL, MEETING, TASK = range(4)
MEAN_GAP = 5.6  # days between two touches of a deal that is being worked

Columns = dict[str, np.ndarray]


class Calendar:
    """Turns days relative to today's local midnight into UTC instants in business hours.

    The mapping never goes back: weekdays run from 07:30 to 18:30, what falls on a weekend is done late on the Friday before
    (in the future: on the Monday after). So events keep their order, and none before today's midnight comes after it.
    """

    def __init__(self, now: datetime, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.today: date = now.astimezone(self.zone).date()
        self._first = -900
        days = [self.today + timedelta(days=d) for d in range(self._first, 400)]
        # Time zones change their offset at night, so noon's is right for all business hours.
        noon = [datetime.combine(day, time(12), self.zone).utcoffset() or timedelta() for day in days]
        self._offset = np.array([int(o.total_seconds()) for o in noon], dtype=np.int64)
        self._epoch = (self.today - date(1970, 1, 1)).days

    def weekday(self, day: Ints) -> Ints:
        return (day + self.today.weekday()) % 7

    def micros(self, t: Floats) -> Ints:
        """UTC microseconds since 1970, on whole seconds."""
        day = np.floor(t).astype(np.int64)
        part = t - day
        weekday = self.weekday(day)
        future = day >= 0
        second = np.select(
            [weekday < 5, weekday == 5],
            [27_000 + part * 39_600, np.where(future, 27_000 + part * 600, 66_600 + part * 700)],
            np.where(future, 27_700 + part * 600, 67_400 + part * 700),
        )
        shift = np.select([weekday < 5, weekday == 5], [0, np.where(future, 2, -1)], np.where(future, 1, -2))
        day = day + shift
        return ((self._epoch + day) * 86_400 + second.astype(np.int64) - self._offset[day - self._first]) * 1_000_000

    def workday(self, day: Ints) -> Ints:
        """The same day, or the Friday before (past) or Monday after (from today on) of a weekend."""
        weekend = self.weekday(day) - 4
        return np.where(weekend <= 0, day, np.where(day < 0, day - weekend, day + 3 - weekend))


@dataclass
class StagePlan:
    """CRM stages (row numbers of company.stage) by pipeline and canonical stage.

    slots[pipeline][canonical]: (stage, probability of being used, usable by open deals) in order; the first with
    probability 1 is the main one. unmapped, won: per pipeline; lost: per pipeline one or two.
    """

    slots: list[list[list[tuple[int, float, bool]]]]
    unmapped: list[int]
    won: list[int]
    lost: list[list[int]]


@dataclass
class People:
    """Person ids. By seller number: `seller`, `manager` (of the team), and when they left, in days."""

    seller: Ints
    manager: Ints
    left: Floats


def changes(
    rng: np.random.Generator, deals: Deals, rows: slice, *, stages: StagePlan, people: People, owner: Ints, actor: Ints, creator: Ints,
    previous: Ints, calendar: Calendar, contact_first: Ints, contact_room: Ints,
) -> Columns:  # fmt: skip
    """Rows of company.deal_change for a slice, in order. Person ids by deal: `owner` (0: nobody), `actor` who edits when
    the owner cannot, `creator`, `previous` owner (0: never another). `num` holds the value: stage row, amount, day, person id,
    template; `aux` for next steps the contact, `due` the day it names (-9999: none)."""
    out = _Rows(rows.start)
    n = rows.stop - rows.start
    status, last = deals.status[rows], deals.stage[rows]
    created, end, stop, silent = deals.created[rows], deals.end[rows], deals.stop[rows], deals.silent_since[rows]
    defects = {name: flags[rows] for name, flags in deals.defects.items()}
    dwell = deals.dwell[rows]
    here = np.arange(n)
    age = np.maximum(-created - (status != OPEN) * -end, 0.5)

    # Stages, slot by slot
    visited = np.isfinite(dwell)
    start = created[:, None] + np.cumsum(np.where(visited, dwell, 0), axis=1) - np.where(visited, dwell, 0)
    present = np.zeros((n, len(SLOT_STAGE)), bool)
    present[here[status == OPEN], SLOT_OF_STAGE[last[status == OPEN]]] = True
    entered = np.full((n, 5), np.nan)
    for slot, stage in enumerate(SLOT_STAGE):
        for p in range(len(stages.won)):
            chosen = np.flatnonzero(visited[:, slot] & (deals.pipeline[rows] == p))
            if not len(chosen):
                continue
            if stage < 0:
                out.add(STAGE, chosen, start[chosen, slot], np.full(len(chosen), stages.lost[p][0]))
                continue
            entered[chosen, stage] = np.fmin(entered[chosen, stage], start[chosen, slot])
            _substages(rng, out, chosen, start[chosen, slot], dwell[chosen, slot], present[chosen, slot], stages, p, int(stage), defects)
    closing = status != OPEN
    for p in range(len(stages.won)):
        won = np.flatnonzero(closing & (status == WON) & (deals.pipeline[rows] == p))
        out.add(STAGE, won, end[won], np.full(len(won), stages.won[p]))
        lost = np.flatnonzero(closing & (status == LOST) & (deals.pipeline[rows] == p))
        choice = np.array(stages.lost[p])[np.minimum((rng.random(len(lost)) < 0.25).astype(int), len(stages.lost[p]) - 1)]
        out.add(STAGE, lost, end[lost], choice)

    # Amounts: a first guess, the quote, the discount; the last one is the deal's
    final = deals.amount[rows]
    known = np.isfinite(final) & (final > 0)
    quoted = known & np.isfinite(entered[:, PROPOSAL]) & (entered[:, PROPOSAL] > created) & (rng.random(n) < 0.5)
    cut = known & np.isfinite(entered[:, NEGOTIATION]) & (entered[:, NEGOTIATION] > created) & (rng.random(n) < 0.35)
    before_cut = np.where(cut, np.round(final / (1 - rng.uniform(0.03, 0.15, n)) / 10) * 10, final)
    guess = np.where(quoted, np.round(before_cut * rng.uniform(0.7, 1.3, n) / 100) * 100 + 100, before_cut)
    late_guess = known & np.isfinite(entered[:, DISCOVERY]) & (entered[:, DISCOVERY] > created) & (rng.random(n) < 0.35)
    out.add(AMOUNT, here, created, np.where(late_guess, np.nan, guess))
    out.add(AMOUNT, here[late_guess], entered[late_guess, DISCOVERY], guess[late_guess])
    out.add(AMOUNT, here[quoted], entered[quoted, PROPOSAL], before_cut[quoted])
    out.add(AMOUNT, here[cut], entered[cut, NEGOTIATION] + 0.01, final[cut])

    _close_dates(rng, out, deals, rows, calendar, defects)

    # Owners
    handed_over = previous > 0
    out.add(OWNER, here, created, np.where(handed_over, previous, np.where(owner > 0, owner, np.nan)))
    moved = here[handed_over]
    out.add(OWNER, moved, created[moved] + age[moved] * rng.uniform(0.1, 0.8, len(moved)), owner[moved])

    # Next steps: written at most stage entries and now and then in between
    at_creation = np.zeros(n, bool)
    for stage in range(5):
        at = entered[:, stage]
        some = here[np.isfinite(at) & (rng.random(n) < 0.8)]
        at_creation[some] |= at[some] <= created[some]
        _next_steps(rng, out, some, at[some], np.full(len(some), stage), calendar, contact_first, contact_room)
        again = here[np.isfinite(at) & (rng.random(n) < 0.45)]
        mid = at[again] + rng.uniform(4, 9, len(again))
        again, mid = again[mid < end[again]], mid[mid < end[again]]
        _next_steps(rng, out, again, mid, np.full(len(again), stage), calendar, contact_first, contact_room)
    written = deals.next_step_at[rows]
    empty = (status == OPEN) & defects["next_step_empty"]
    cleared = np.where(rng.random(n) < 0.5, -rng.uniform(3, np.maximum(np.minimum(30, age - 0.6), 3.2)), created)
    cleared = np.where(np.isfinite(silent), np.minimum(cleared, silent), np.maximum(cleared, created))
    limit = np.where(np.isfinite(written), written, np.where(empty, cleared, np.inf))
    out.cut(NEXT_STEP, limit)
    unsaid = here[~at_creation & (limit > created)]
    out.add(NEXT_STEP, unsaid, created[unsaid], np.full(len(unsaid), np.nan))
    fresh = np.flatnonzero(np.isfinite(written))
    _next_steps(
        rng, out, fresh, written[fresh], last[fresh], calendar, contact_first, contact_room,
        ahead=~(np.isfinite(silent[fresh]) | defects["next_step_stale"][fresh]),
    )  # fmt: skip
    cleared_rows = np.flatnonzero(empty)
    out.add(NEXT_STEP, cleared_rows, limit[cleared_rows], np.full(len(cleared_rows), np.nan))

    # Optimists raise the probability, and a few others do
    optimist = (deals.style[rows] == HAPPY_EARS) & (status != OPEN)
    raised = here[np.isfinite(entered[:, PROPOSAL]) & (rng.random(n) < np.where(optimist, 0.5, 0.02)) & (status != OPEN)]
    out.add(PROBABILITY, raised, entered[raised, PROPOSAL] + 0.2, np.full(len(raised), 90))

    rows_ = out.finish()
    deal = rows_["deal"] - rows.start
    keep = (rows_["t"] <= stop[deal]) & (rows_["t"] <= 0)
    rows_ = {name: column[keep] for name, column in rows_.items()}
    deal = rows_["deal"] - rows.start
    t = rows_["t"]
    seller = deals.owner[rows][deal]
    present_owner = np.where(seller >= 0, people.left[seller] > t, False)
    person = np.where(present_owner & (owner[deal] > 0), owner[deal], actor[deal])
    rows_["person_id"] = np.where(t <= created[deal], creator[deal], person)
    rows_["at"] = calendar.micros(t)
    return rows_


def _substages(
    rng: np.random.Generator, out: _Rows, deal: Ints, start: Floats, days: Floats, present: Flags, stages: StagePlan, pipeline: int,
    canonical: int, defects: dict[str, Flags],
) -> None:  # fmt: skip
    """Share the time in a canonical stage among the CRM stages that stand for it."""
    plan = stages.slots[pipeline][canonical]
    chance = np.array([probability for _, probability, _ in plan])
    main = int(np.argmax(chance))
    used = rng.random((len(deal), len(plan))) < chance
    # A stuck deal stands in one CRM stage all the time, and so does one whose stage change is no excuse for an empty next step;
    # an open one only in stages that are in use and can be mapped.
    alone = present & (defects["stage_dwell"][deal] | defects["next_step_empty"][deal])
    used &= ~alone[:, None]
    used &= ~present[:, None] | np.array([usable for _, _, usable in plan])
    used[:, main] = True
    unmapped = present & defects["stage_unmapped"][deal]
    weight = np.where(used, rng.uniform(0.3, 1, used.shape), 0)
    share = weight / weight.sum(axis=1, keepdims=True)
    begin = start[:, None] + (np.cumsum(share, axis=1) - share) * days[:, None]
    for j, (stage, _, _) in enumerate(plan):
        some = used[:, j]
        out.add(STAGE, deal[some], begin[some, j], np.where(unmapped[some] & (j == main), stages.unmapped[pipeline], stage))


def _close_dates(
    rng: np.random.Generator, out: _Rows, deals: Deals, rows: slice, calendar: Calendar, defects: dict[str, Flags]
) -> None:
    """The first close date, each push of it, and on closing the day itself."""
    status, created, end = deals.status[rows], deals.created[rows], deals.end[rows]
    n = len(status)
    here = np.arange(n)
    closed = status != OPEN
    day = deals.close_day[rows]
    final = np.where(closed, np.floor(end).astype(np.int64) + rng.integers(-4, 13, n), day)
    final = np.maximum(final, np.floor(created).astype(np.int64) + 4)
    final = np.where(~closed & defects["close_date_past"], np.minimum(final, -5), final)
    # Some sellers think in months: the date is the last day of one. Never for a date that was planted to be past.
    month_end = (rng.random(n) < 0.3) & ~defects["close_date_past"] & (final > np.floor(created) + 4)
    final = np.where(month_end, np.maximum(_month_end(calendar, final), final), final)
    final = np.where(defects["close_date_past"], final, calendar.workday(final))

    pushes = deals.pushes[rows]
    room = final - np.floor(created).astype(np.int64) - 7
    pushes = np.clip(np.minimum(pushes, room // 9), 0, 5)
    step = np.where(pushes[:, None] > np.arange(5), rng.uniform(9, 40, (n, 5)), 0.0)
    step *= np.minimum(1, room / np.maximum(step.sum(axis=1), 1))[:, None]
    step = np.floor(step).astype(np.int64)
    planned = final[:, None] - step[:, ::-1].cumsum(axis=1)[:, ::-1]
    planned = np.concatenate([planned, final[:, None]], axis=1)  # (n, 6): before the 1st push ... after the last
    until = np.minimum(np.minimum(end, deals.stop[rows]), np.minimum(deals.silent_since[rows], -0.2))
    span = np.maximum(until - created, 0.2)
    out.add(CLOSE_DATE, here, created, planned[:, 0])
    before = created
    for i in range(5):
        left = pushes - i
        at = np.minimum(planned[:, i] - rng.uniform(0, 5, n), until - span * 0.9 * (left - 1) / np.maximum(pushes + 1, 1) - 0.05)
        at = np.clip(np.maximum(at, before + span * 0.12 / np.maximum(pushes, 1)), created, until)
        some = here[left > 0]
        out.add(CLOSE_DATE, some, at[some], planned[some, i + 1])
        before = np.where(left > 0, at, before)
    closing = here[closed]
    late = deals.defects["state_inconsistent"][rows][closing]
    # Work done on a weekend is dated the Friday before, and so is the closing day: it is never after its own instant.
    on_the_day = calendar.workday(np.minimum(np.floor(end[closing]).astype(np.int64), -1))
    out.add(CLOSE_DATE, closing, end[closing], np.where(late, day[closing], on_the_day))


def _month_end(calendar: Calendar, day: Ints) -> Ints:
    month = (np.datetime64(calendar.today) + day).astype("datetime64[M]") + 1
    return (month.astype("datetime64[D]") - np.datetime64(calendar.today)).astype(np.int64) - 1


def _next_steps(
    rng: np.random.Generator, out: _Rows, deal: Ints, t: Floats, stage: Ints, calendar: Calendar, contact_first: Ints, contact_room: Ints,
    ahead: Flags | None = None,
) -> None:  # fmt: skip
    """A next step due some days after it was written; with `ahead` due after today, as it is where people keep it up."""
    n = len(deal)
    due = np.floor(t + rng.uniform(3, 14, n)).astype(np.int64)
    if ahead is not None:
        due = np.where(ahead, rng.integers(4, 15, n), due)
    due = calendar.workday(due)
    contact = contact_first[deal] + (rng.random(n) * contact_room[deal]).astype(np.int64)
    template = stage * 100 + rng.integers(0, 60, n)
    out.add(NEXT_STEP, deal, t, template, aux=contact, due=due)


def deal_contacts(
    rng: np.random.Generator, deals: Deals, rows: slice, *, calendar: Calendar, contact_first: Ints, contact_total: Ints,
    account_start: Ints,
) -> Columns:  # fmt: skip
    """Rows of company.deal_contact for a slice: the first contact with the deal, the others one after the other.

    `contact_first` is the account contact with whom a deal starts; the others follow it, around the account's list.
    """
    count = deals.contacts[rows]
    deal = np.repeat(np.arange(len(count)), count)
    i = _within(count)
    created = deals.created[rows][deal]
    until = np.minimum(np.minimum(deals.end[rows], deals.silent_since[rows]), np.minimum(deals.stop[rows], -0.3))[deal]
    t = np.where(i == 0, created, created + np.maximum(until - created, 0) * rng.uniform(0.02, 0.75, len(deal)))
    offset = contact_first[deal] - account_start[deal]
    contact = account_start[deal] + (offset + i) % contact_total[deal]
    # Somebody who decides is the second one whom sellers attach, so that deals with two contacts have one.
    first, second = rng.choice([0, 2, 4, 6], len(deal)), rng.choice([1, 3, 5], len(deal))
    role = np.select([i == 0, i == 1], [first, second], rng.integers(0, 7, len(deal)))
    return {"deal": deal + rows.start, "contact_id": contact, "role": role, "is_primary": i == 0, "at": calendar.micros(t)}


def activities(
    rng: np.random.Generator, deals: Deals, rows: slice, *, calendar: Calendar, contact_first: Ints, people: People, owner: Ints,
    actor: Ints,
) -> Columns:  # fmt: skip
    """Rows of company.activity for a slice, without ids: what was done, and for open deals what is planned."""
    status, stage = deals.status[rows], deals.stage[rows]
    created, end, silent, stop = deals.created[rows], deals.end[rows], deals.silent_since[rows], deals.stop[rows]
    n = len(status)
    lost = created + (end - created) * rng.uniform(0.55, 1, n)
    recent = -rng.uniform(0.2, np.array([12.0, 6.5, 6.5, 4.3, 3.6])[stage])
    last = np.select([status == WON, status == LOST, np.isfinite(silent)], [end, lost, silent], np.maximum(recent, created * 0.6))
    span = np.maximum(last - created, 0.01)
    count = 1 + rng.poisson(span / np.where(span > 150, 2 * MEAN_GAP, MEAN_GAP))
    deal = np.repeat(np.arange(n), count)
    gap = rng.lognormal(0, 0.7, len(deal))
    total = np.cumsum(gap)
    ends = np.cumsum(count) - 1
    base = np.where(ends - count + 1 > 0, total[ends - count], 0.0)
    within = (total - base[deal]) / (total[ends] - base)[deal]
    t = created[deal] + span[deal] * within
    keep = t <= np.minimum(stop[deal], -0.01)
    deal, t = deal[keep], t[keep]
    kind = rng.choice([CALL, EMAIL, MEETING, TASK], len(deal), p=[0.31, 0.4, 0.19, 0.1])
    lead = np.select([kind == MEETING, kind == TASK], [rng.uniform(1, 9, len(deal)), rng.uniform(0.5, 6, len(deal))], 0.0)
    begun = np.maximum(created[deal], t - lead)

    # Planned: what keeps a worked deal going; on silent ones an old task that nobody did
    worked = (status == OPEN) & ~np.isfinite(silent) & ~np.isfinite(stop) & ~deals.defects["next_step_empty"][rows]
    ahead = np.where(worked & (stage > PRE), 1 + (rng.random(n) < 0.2), worked & (rng.random(n) < 0.4)).astype(np.int64)
    next_deal = np.repeat(np.arange(n), ahead)
    next_t = rng.uniform(1, 11, len(next_deal))
    next_kind = rng.choice([MEETING, TASK, CALL], len(next_deal), p=[0.45, 0.4, 0.15])
    next_begun = np.maximum(created[next_deal], -rng.uniform(0.1, 4, len(next_deal)))
    undone = np.flatnonzero(np.isfinite(silent) & (status == OPEN) & (rng.random(n) < 0.35))
    undone_t = np.minimum(silent[undone] + 5, -3)

    deal = np.concatenate([deal, next_deal, undone])
    t = np.concatenate([t, next_t, undone_t])
    kind = np.concatenate([kind, next_kind, np.full(len(undone), TASK)])
    begun = np.concatenate([begun, next_begun, silent[undone]])
    done = np.arange(len(deal)) < len(deal) - len(next_deal) - len(undone)
    # What is still open or planned can only be as old as the deal and not younger than its last touch.
    seller = deals.owner[rows][deal]
    working = np.where(seller >= 0, people.left[seller] > np.minimum(t, -0.01), False) & (owner[deal] > 0)
    contacts = deals.contacts[rows][deal]
    at = calendar.micros(t)
    columns: Columns = {
        "deal": deal + rows.start,
        "contact_id": np.where(contacts > 0, contact_first[deal], 0),
        "owner_id": np.where(working, owner[deal], actor[deal]),
        "kind": kind,
        "subject": rng.integers(0, 4, len(deal)),
        "at": at,
        "minutes": np.where(kind == MEETING, rng.choice([30, 45, 60, 90], len(deal)), 15),
        "done": done,
        "created": np.minimum(calendar.micros(begun), np.where(done, at, calendar.micros(np.full(1, -0.01))[0])),
    }
    order = np.lexsort((columns["at"], columns["deal"]))
    return {name: column[order] for name, column in columns.items()}


def _within(count: Ints) -> Ints:
    """0..count-1 for each, one after the other."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


class _Rows:
    """Collects change rows as columns."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, field: int, deal: Ints, t: Floats, num: np.ndarray, aux: Ints | None = None, due: Ints | None = None) -> None:
        n = len(deal)
        zero, none = np.zeros(n, np.int64), np.full(n, -9999)
        self._parts.append(
            (np.full(n, field), deal, t, num.astype(np.float64), zero if aux is None else aux, none if due is None else due)
        )

    def cut(self, field: int, limit: Floats) -> None:
        """Forget the changes of a field at or after each deal's limit."""
        parts = []
        for part in self._parts:
            keep = (part[0] != field) | (part[2] < limit[part[1]])
            parts.append(tuple(column[keep] for column in part))
        self._parts = parts

    def finish(self) -> Columns:
        field, deal, t, num, aux, due = (np.concatenate(columns) for columns in zip(*self._parts, strict=True))
        order = np.lexsort((field, t, deal))
        names = ("field", "deal", "t", "num", "aux", "due")
        columns = (field, deal + self._first, t, num, aux, due)
        return {name: column[order] for name, column in zip(names, columns, strict=True)}
