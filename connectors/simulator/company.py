"""The believable company that both simulated CRMs are filled with: `build_company` writes it into a DuckDB schema.

Deterministic by seed; `now` is the only clock. The simulators project these tables into their own records, and tests read from
them what is true. `company.planted` and `company.rep_style` are never served to anyone.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import duckdb
import numpy as np

from connectors.simulator.company_deals import HISTORY_DAYS, STYLES, Accounts, Deals, Pipelines, Sellers, draw_deals
from connectors.simulator.company_events import FIELDS, Calendar, People, StagePlan, activities, changes, deal_contacts

Kind = Literal["salesforce", "hubspot"]
ZONE = "Europe/Berlin"
CHUNK = 40_000  # deals whose events are in memory at one time
TEAM_SHARE = np.array([0.32, 0.22, 0.16, 0.18, 0.12])

ADMIN, OWN_INTEGRATION, OTHER_INTEGRATION, QUEUE, HEAD = 1, 2, 3, 4, 5
FIRST_MANAGER = 6

# (stage, label, probability, forecast category, closed, won, active)
_Stage = tuple[str, str, int, str, bool, bool, bool]
_SALESFORCE_STAGES: list[_Stage] = [
    ("Prospecting", "Prospecting", 10, "pipeline", False, False, True),
    ("Qualification", "Qualification", 10, "pipeline", False, False, True),
    ("Needs Analysis", "Needs Analysis", 20, "pipeline", False, False, True),
    ("Demo", "Demo", 30, "pipeline", False, False, False),
    ("Orbit Check", "Orbit Check", 40, "pipeline", False, False, True),
    ("Value Proposition", "Value Proposition", 50, "pipeline", False, False, True),
    ("Id. Decision Makers", "Id. Decision Makers", 60, "pipeline", False, False, True),
    ("Perception Analysis", "Perception Analysis", 70, "pipeline", False, False, True),
    ("Proposal/Price Quote", "Proposal/Price Quote", 75, "best_case", False, False, True),
    ("Security Review", "Security Review", 80, "best_case", False, False, True),
    ("Negotiation/Review", "Negotiation/Review", 90, "commit", False, False, True),
    ("Verbal", "Verbal", 95, "commit", False, False, True),
    ("Closed Won", "Closed Won", 100, "closed", True, True, True),
    ("Closed Lost", "Closed Lost", 0, "omitted", True, False, True),
]
# pipeline, label, kind; canonical stage (number) to [(stage, probability of use, usable by open deals)]; unmapped stage
_PIPELINES: dict[str, list[dict[str, Any]]] = {
    "salesforce": [
        {
            "pipeline": "New Business", "label": "New Business", "kind": "new", "size": 1.0, "unmapped": None,
            "slots": {
                0: [("Prospecting", 1, True)],
                1: [("Qualification", 1, True)],
                2: [("Needs Analysis", 1, True), ("Value Proposition", 0.4, True), ("Id. Decision Makers", 0.3, True)],
                3: [("Proposal/Price Quote", 1, True)],
                4: [("Security Review", 0.25, True), ("Negotiation/Review", 1, True), ("Verbal", 0.4, True)],
            },
        },
        {
            "pipeline": "Expansion", "label": "Expansion", "kind": "expansion", "size": 0.6, "unmapped": None,
            "slots": {
                1: [("Qualification", 1, True)],
                2: [("Needs Analysis", 1, True), ("Demo", 0.15, False), ("Perception Analysis", 0.35, True)],
                3: [("Proposal/Price Quote", 1, True)],
                4: [("Negotiation/Review", 1, True), ("Verbal", 0.3, True)],
            },
        },
        {
            "pipeline": "Partner", "label": "Partner", "kind": "partner", "size": 0.8, "unmapped": "Orbit Check",
            "slots": {
                0: [("Prospecting", 1, True)],
                1: [("Qualification", 1, True)],
                2: [("Needs Analysis", 1, True), ("Orbit Check", 0.12, False)],
                3: [("Proposal/Price Quote", 1, True)],
                4: [("Negotiation/Review", 1, True)],
            },
        },
    ],
    "hubspot": [
        {
            "pipeline": "default", "label": "Sales Pipeline", "kind": "new", "size": 1.0, "unmapped": None,
            # Portals relabel default stages and keep their ids: the id of the fourth says something that its label does not.
            "stages": [
                ("appointmentscheduled", "Appointment Scheduled", 20, "pipeline", False, False, True),
                ("qualifiedtobuy", "Qualified To Buy", 40, "pipeline", False, False, True),
                ("presentationscheduled", "Presentation Scheduled", 60, "pipeline", False, False, True),
                ("90412377", "Proposal Sent", 70, "best_case", False, False, True),
                ("decisionmakerboughtin", "Contract Negotiation", 80, "commit", False, False, True),
                ("contractsent", "Contract Sent", 90, "commit", False, False, True),
                ("closedwon", "Closed Won", 100, "closed", True, True, True),
                ("closedlost", "Closed Lost", 0, "omitted", True, False, True),
                ("90412381", "No Decision", 0, "omitted", True, False, True),
            ],
            "slots": {
                0: [("appointmentscheduled", 1, True)],
                1: [("qualifiedtobuy", 1, True)],
                2: [("presentationscheduled", 1, True)],
                3: [("90412377", 1, True)],
                4: [("decisionmakerboughtin", 1, True), ("contractsent", 0.55, True)],
            },
        },
        {
            "pipeline": "748213905", "label": "Expansion", "kind": "expansion", "size": 0.6, "unmapped": "1093847203",
            "stages": [
                ("1093847201", "Opportunity Identified", 20, "pipeline", False, False, True),
                ("1093847202", "Workshop", 40, "pipeline", False, False, True),
                ("1093847203", "Lighthouse", 50, "pipeline", False, False, True),
                ("1093847204", "Offer", 65, "best_case", False, False, True),
                ("1093847205", "Legal Review", 85, "commit", False, False, True),
                ("1093847206", "Won", 100, "closed", True, True, True),
                ("1093847207", "Lost", 0, "omitted", True, False, True),
            ],
            "slots": {
                1: [("1093847201", 1, True)],
                2: [("1093847202", 1, True), ("1093847203", 0.12, False)],
                3: [("1093847204", 1, True)],
                4: [("1093847205", 1, True)],
            },
        },
    ],
}  # fmt: skip
_SHARE_BY_TEAM = {
    "salesforce": np.array([[0.72, 0.28, 0.0]] * 4 + [[0.0, 0.15, 0.85]]),
    "hubspot": np.array([[0.72, 0.28]] * 5),
}
_CANONICAL = ("prequalified", "qualified", "discovery", "proposal", "negotiation")


@cache
def words() -> dict[str, Any]:
    return json.loads(files(__package__).joinpath("company_words.json").read_text(encoding="utf-8"))


def build_company(con: duckdb.DuckDBPyConnection, *, seed: int, deals: int, now: datetime, kind: Kind = "salesforce") -> None:
    """Create schema `company` with a company of `deals` deals in the state of `now`, two years of history behind it.

    con: a DuckDB connection that holds no schema `company` yet. now: aware instant; the last thing anybody did was before the
    local midnight of its day. kind: whose stages, picklists and habits; only HubSpot's deals are merged.
    """
    if deals < 1:
        raise ValueError("A company needs at least one deal")
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    rng = np.random.default_rng([seed, ("salesforce", "hubspot").index(kind)])
    calendar = Calendar(now, ZONE)
    con.execute("create schema company")
    _reference(con, kind, now, calendar, rng)
    plan, pipelines = _stages(con, kind)
    sellers, people = _people(con, rng, kind, deals, calendar)
    accounts, first_contact = _accounts(con, rng, kind, deals)
    drawn = draw_deals(
        rng, deals=deals, sellers=sellers, pipelines=pipelines, accounts=accounts, teams=TEAM_SHARE,
        merges=kind == "hubspot", ownerless=kind == "hubspot",
    )  # fmt: skip
    owner, actor, creator, previous = _who(rng, drawn, sellers, people)
    _account_rows(con, rng, accounts, sellers, people, first_contact, calendar, kind)
    _deal_rows(con, rng, drawn, kind, creator, calendar)
    _event_tables(con)
    offset = (rng.random(deals) * accounts.contacts[drawn.account]).astype(np.int64)
    start = first_contact[drawn.account]
    total = accounts.contacts[drawn.account]
    met = start + offset
    for low in range(0, deals, CHUNK):
        rows = slice(low, min(low + CHUNK, deals))
        changed = changes(
            rng, drawn, rows, stages=plan, people=people, owner=owner[rows], actor=actor[rows], creator=creator[rows],
            previous=previous[rows], calendar=calendar, contact_first=start[rows], contact_room=total[rows],
        )  # fmt: skip
        attached = deal_contacts(
            rng, drawn, rows, calendar=calendar, contact_first=met[rows], contact_total=total[rows], account_start=start[rows]
        )
        touched = activities(
            rng, drawn, rows, calendar=calendar, contact_first=met[rows], people=people, owner=owner[rows], actor=actor[rows]
        )
        _add_changes(con, changed, calendar)
        _add_contacts(con, attached, kind)
        _add_activities(con, touched, calendar)
    _finish(con, drawn, owner, calendar)


# Reference data


def _reference(con: duckdb.DuckDBPyConnection, kind: Kind, now: datetime, calendar: Calendar, rng: np.random.Generator) -> None:
    profile = words()["profile"][kind]
    introduced = now.astimezone(UTC).replace(microsecond=0) - timedelta(days=HISTORY_DAYS + 30)
    con.execute(
        """create table company.profile as
           select $1::varchar as name, $2::varchar as domain, $3::varchar as timezone, 'EUR' as currency,
                  1 as fiscal_year_start_month, $4::timestamptz as org_created_at""",
        [profile["name"], profile["domain"], ZONE, introduced],
    )
    rates = words()["currencies"]
    codes = [code for code in rates if kind == "salesforce" or code in ("EUR", "GBP", "USD")]
    con.execute("create table company.currency (iso_code varchar, rate decimal(18, 6), is_home boolean, is_active boolean)")
    con.execute(
        """create table company.dated_rate (iso_code varchar, start_date date, next_start_date date, rate decimal(18, 6))"""
    )
    con.executemany("insert into company.currency values (?, ?, ?, true)", [(c, round(rates[c], 6), c == "EUR") for c in codes])
    months = np.arange(
        (np.datetime64(calendar.today) - HISTORY_DAYS - 40).astype("datetime64[M]"), np.datetime64(calendar.today, "M") + 1
    ).astype("datetime64[D]")
    for code in codes:
        drift = np.zeros(len(months)) if code == "EUR" else np.cumsum(rng.normal(0, 0.006, len(months)))
        drift -= drift[-1]  # the rate in force now is the one of company.currency
        con.register(
            "_rate",
            {"start": (months - np.datetime64("1970-01-01")).astype(np.int32), "rate": np.round(rates[code] * np.exp(drift), 6)},
        )
        con.execute(
            """insert into company.dated_rate
               select $1, date '1970-01-01' + start, lead(date '1970-01-01' + start, 1, date '9999-12-31') over (order by start), rate
               from _rate""",
            [code],
        )
        con.unregister("_rate")
    con.execute("create table company.team (team varchar, region varchar)")
    regions = [(team, words()["countries"][countries[0]]["region"]) for team, countries, _ in words()["teams"]]
    con.executemany("insert into company.team values (?, ?)", regions)


def _stages(con: duckdb.DuckDBPyConnection, kind: Kind) -> tuple[StagePlan, Pipelines]:
    """company.pipeline and company.stage, whose row number (from 0) is how the events name a stage."""
    con.execute("create table company.pipeline (pipeline varchar, label varchar, kind varchar, position integer)")
    con.execute(
        """create table company.stage (stage_no integer, pipeline varchar, stage varchar, label varchar, position integer,
             probability integer, forecast_category varchar, is_closed boolean, is_won boolean, is_active boolean,
             canonical varchar)"""
    )
    slots: list[list[list[tuple[int, float, bool]]]] = []
    unmapped, won, lost = [], [], []
    rows: list[tuple[Any, ...]] = []
    specs = _PIPELINES[kind]
    for position, spec in enumerate(specs):
        con.execute("insert into company.pipeline values (?, ?, ?, ?)", [spec["pipeline"], spec["label"], spec["kind"], position])
        canonical = {stage: _CANONICAL[number] for number, used in spec["slots"].items() for stage, _, _ in used}
        if spec["unmapped"]:
            canonical[spec["unmapped"]] = "unmapped"
        numbers: dict[str, int] = {}
        used_stages = spec.get("stages") or [s for s in _SALESFORCE_STAGES if s[0] in canonical or s[4]]
        for place, (stage, label, probability, forecast, closed, is_won, active) in enumerate(used_stages):
            numbers[stage] = len(rows)
            meaning = ("closed_won" if is_won else "closed_lost") if closed else canonical[stage]
            place_shown = place if "stages" in spec else [s[0] for s in _SALESFORCE_STAGES].index(stage)
            rows.append(
                (len(rows), spec["pipeline"], stage, label, place_shown, probability, forecast, closed, is_won, active, meaning)
            )
        slots.append([[(numbers[s], p, ok) for s, p, ok in spec["slots"].get(number, [])] for number in range(5)])
        unmapped.append(numbers[spec["unmapped"]] if spec["unmapped"] else -1)
        won.append(next(numbers[s[0]] for s in used_stages if s[5]))
        lost.append([numbers[s[0]] for s in used_stages if s[4] and not s[5]])
    con.executemany("insert into company.stage values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    pipelines = Pipelines(
        share_by_team=_SHARE_BY_TEAM[kind],
        has=np.array([[number in spec["slots"] for number in range(5)] for spec in specs]),
        size=np.array([spec["size"] for spec in specs]),
        unmapped=np.array([spec["unmapped"] is not None for spec in specs]),
    )
    return StagePlan(slots, unmapped, won, lost), pipelines


# People


def _people(
    con: duckdb.DuckDBPyConnection, rng: np.random.Generator, kind: Kind, deals: int, calendar: Calendar
) -> tuple[Sellers, People]:
    teams = words()["teams"]
    n = int(np.clip(round(deals / 42), 10, 600))
    team = np.sort(np.concatenate([np.repeat(np.arange(5), 2), rng.choice(5, n - 10, p=TEAM_SHARE)]))
    veteran = np.concatenate([[True], team[1:] != team[:-1]])
    joined = np.where(veteran | (rng.random(n) < 0.6), -HISTORY_DAYS - rng.uniform(1, 25, n), rng.uniform(-640, -100, n))
    left = np.full(n, np.inf)
    others = np.flatnonzero(~veteran)
    leavers = rng.permutation(others)[: max(2, round(n * 0.14))]
    left[leavers] = rng.uniform(np.maximum(joined[leavers] + 60, -330), -25)
    # Lately enough that deals which are still open were theirs.
    left[leavers[: max(2, len(leavers) // 2)]] = rng.uniform(-45, -12, max(2, len(leavers) // 2))
    style = np.zeros(n, np.int64)
    stay = rng.permutation(np.flatnonzero(np.isinf(left) & ~veteran))
    for i, seller in enumerate(stay[: max(3, 3 * (n // 25))]):
        style[seller] = 1 + i % 3
    person = FIRST_MANAGER + len(teams) + np.arange(n)

    domain = words()["profile"][kind]["domain"]
    used: set[str] = set()

    def row(person_id: int, first: str | None, last: str, title: str, what: str, *more: Any) -> tuple[Any, ...]:
        plain = _ascii(f"{first}.{last}" if first else last).lower().replace(" ", "-")
        email, i = f"{plain}@{domain}", 2
        while email in used:
            email, i = f"{plain}{i}@{domain}", i + 1
        used.add(email)
        return (person_id, first, last, email, title, what, *more)

    start = _when(calendar, -HISTORY_DAYS - 20.0)
    rows = [
        row(ADMIN, "Nele", "Albrecht", "CRM Administrator", "admin", None, "Administrator", None, True, start, None),
        row(OWN_INTEGRATION, None, "Plumbline Integration", "Integration", "integration", None, None, None, True, start, None),
        row(OTHER_INTEGRATION, None, "Marketing Sync", "Integration", "integration", None, None, None, True, start, None),
    ]
    if kind == "salesforce":
        rows.append(row(QUEUE, None, "Unassigned Deals", "Queue", "queue", None, None, None, True, start, None))
    rows.append(row(HEAD, "Cornelia", "Hagen", "VP Sales", "manager", None, "VP Sales", None, True, start, None))
    names = [_names(countries) for _, countries, _ in teams]
    for i, (name, _, _) in enumerate(teams):
        first, last = names[i](rng)
        rows.append(row(FIRST_MANAGER + i, first, last, f"Sales Manager {name}", "manager", name, "Sales Manager", HEAD, True, start, None))
    for i in range(n):
        t = int(team[i])
        first, last = names[t](rng)
        gone = None if np.isinf(left[i]) else _when(calendar, float(left[i]))
        rows.append(
            row(int(person[i]), first, last, "Account Executive", "seller", teams[t][0], "Account Executive", FIRST_MANAGER + t,
                gone is None, _when(calendar, float(joined[i])), gone)
        )  # fmt: skip
    con.execute(
        """create table company.person (person_id integer, first_name varchar, last_name varchar, email varchar, title varchar,
             kind varchar, team varchar, role_name varchar, manager_id integer, is_active boolean, joined_at timestamptz,
             left_at timestamptz)"""
    )
    con.executemany("insert into company.person values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    con.execute("create table company.rep_style (person_id integer, style varchar)")
    con.executemany("insert into company.rep_style values (?, ?)", [(int(person[i]), STYLES[style[i]]) for i in range(n)])
    return Sellers(team, style, joined, left), People(person, FIRST_MANAGER + team, left)


def _names(countries: list[str]) -> Callable[[np.random.Generator], tuple[str, str]]:
    first = [name for c in countries for name in words()["countries"][c]["first"]]
    last = [name for c in countries for name in words()["countries"][c]["last"]]

    def draw(rng: np.random.Generator) -> tuple[str, str]:
        return first[rng.integers(len(first))], last[rng.integers(len(last))]

    return draw


def _ascii(text: str) -> str:
    for letter, plain in {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae"}.items():
        text = text.replace(letter, plain)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _when(calendar: Calendar, t: float) -> datetime:
    return datetime.fromtimestamp(int(calendar.micros(np.array([t]))[0]) / 1e6, UTC)


def _who(
    rng: np.random.Generator, deals: Deals, sellers: Sellers, people: People
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By deal: owner (0: nobody), who acts when the owner cannot, creator, and the owner before a handover (0: none)."""
    n = len(deals)
    manager = FIRST_MANAGER + deals.team
    owner = np.where(deals.owner >= 0, people.seller[deals.owner], 0)
    first = np.searchsorted(sellers.team, np.arange(6))
    other = first[deals.team] + (rng.random(n) * (first[deals.team + 1] - first[deals.team])).astype(np.int64)
    there = (sellers.joined[other] < deals.created) & (sellers.left[other] > deals.created)
    handed_over = there & (other != deals.owner) & (deals.owner >= 0) & (rng.random(n) < 0.07)
    handed_over &= ~np.isfinite(deals.silent_since) & ~deals.defects["owner_not_working"]
    previous = np.where(handed_over, people.seller[other], 0)
    begun_by = np.where(handed_over, previous, np.where(deals.owner >= 0, owner, manager))
    creator = np.where(rng.random(n) < 0.12, OTHER_INTEGRATION, begun_by)
    return owner, manager, creator, previous


# Accounts and contacts


def _accounts(
    con: duckdb.DuckDBPyConnection, rng: np.random.Generator, kind: Kind, deals: int
) -> tuple[Accounts, np.ndarray]:
    """Numbers of the accounts; contact ids run account by account, the first of each is returned."""
    n = max(20, round(deals * 0.55))
    team = np.sort(np.concatenate([np.arange(5), rng.choice(5, n - 5, p=TEAM_SHARE)]))
    country = np.zeros(n, np.int64)
    rates = np.zeros(n)
    position = 0
    for t, (_, countries, shares) in enumerate(words()["teams"]):
        chosen = np.flatnonzero(team == t)
        country[chosen] = position + rng.choice(len(countries), len(chosen), p=shares)
        for i, name in enumerate(countries):
            code = _currency(words()["countries"][name]["currency"], kind)
            rates[(team == t) & (country == position + i)] = words()["currencies"][code]
        position += len(countries)
    contacts = 5 + rng.integers(0, 4, n)
    con.register("_account", {"account_id": np.arange(1, n + 1), "country_no": country})
    con.execute("create temp table account_country as select account_id, country_no from _account")
    con.unregister("_account")
    first = np.cumsum(contacts) - contacts + 1
    return Accounts(team, rng.choice(3, n, p=[0.5, 0.35, 0.15]), rates, contacts), first


def _currency(code: str, kind: Kind) -> str:
    return code if kind == "salesforce" or code in ("EUR", "GBP", "USD") else "EUR"


def _account_rows(
    con: duckdb.DuckDBPyConnection, rng: np.random.Generator, accounts: Accounts, sellers: Sellers, people: People,
    first_contact: np.ndarray, calendar: Calendar, kind: Kind,
) -> None:  # fmt: skip
    n = len(accounts.team)
    lowest, spread = np.array([15, 120, 900])[accounts.segment], np.array([100, 700, 9000])[accounts.segment]
    industries = words()["industries"]
    seller = np.searchsorted(sellers.team, accounts.team)  # the veteran of the team, or someone else who is there
    size = np.searchsorted(sellers.team, accounts.team + 1) - seller
    other = seller + (rng.random(n) * size).astype(np.int64)
    seller = np.where(np.isinf(sellers.left[other]), other, seller)
    by = np.where(sellers.joined[seller] < accounts.created, people.seller[seller], FIRST_MANAGER + accounts.team)
    con.register(
        "_account",
        {
            "account_id": np.arange(1, n + 1),
            "employees": lowest + (rng.random(n) ** 2 * spread).astype(np.int64),
            "industry": rng.integers(0, len(industries), n),
            "r": rng.integers(0, 1 << 30, n),
            "owner_id": people.seller[seller],
            "created_by": by,
            "at": calendar.micros(accounts.created),
            "first_contact": first_contact,
            "contacts": accounts.contacts,
        },
    )
    countries = words()["countries"]
    con.execute(
        """create temp table country (country_no integer, country varchar, region varchar, currency varchar, form varchar,
             cities varchar[], stems varchar[], first varchar[], last varchar[])"""
    )
    order = [c for _, team, _ in words()["teams"] for c in team]
    con.executemany(
        "insert into country values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (i, c, countries[c]["region"], _currency(countries[c]["currency"], kind),
             *(countries[c][k] for k in ("form", "cities", "stems", "first", "last")))
            for i, c in enumerate(order)
        ],
    )
    con.execute("create temp table industry (industry_no integer, industry varchar, nouns varchar[])")
    con.executemany("insert into industry values (?, ?, ?)", [(i, name, nouns) for i, (name, nouns) in enumerate(industries)])
    con.execute(
        """
        create table company.account as
        with named as (
            select a.account_id, a.employees, i.industry, c.country, c.region, c.currency, c.form, a.owner_id, a.created_by, a."at",
                   c.cities[1 + a.r % len(c.cities)] as city,
                   c.stems[1 + (a.r // 16) % len(c.stems)] || ' ' || i.nouns[1 + (a.r // 1024) % len(i.nouns)] as base
            from _account a
            join account_country using (account_id)
            join country c using (country_no)
            join industry i on i.industry_no = a.industry
        ), numbered as (
            select *, row_number() over (partition by base, form order by account_id) as nth,
                   row_number() over (partition by base, city order by account_id) as nth_in_city
            from named
        )
        select account_id::integer as account_id,
               -- namesakes are told apart by their town, as in life, and by a number where the town has several
               case when nth = 1 then base || ' ' || form
                    when nth_in_city = 1 then base || ' ' || city || ' ' || form
                    else base || ' ' || city || ' ' || nth_in_city || ' ' || form end as name,
               industry, employees::integer as employees, null::varchar as website, country, region, city, currency,
               owner_id::integer as owner_id, make_timestamptz("at") as created_at, created_by::integer as created_by
        from numbered order by account_id
        """
    )
    con.execute(
        """
        create temp macro plain(text) as
            lower(strip_accents(replace(replace(replace(replace(text, 'ß', 'ss'), 'ł', 'l'), 'Ł', 'L'), 'ø', 'o')))
        """
    )
    con.execute(
        """
        update company.account
        set website = 'https://www.' || trim(regexp_replace(plain(name), '[^a-z0-9]+', '-', 'g'), '-') || '.example'
        """
    )
    w = words()
    con.execute(
        f"""
        create table company.contact as
        with each as (
            select a.account_id, country_no, unnest(range(a.first_contact, a.first_contact + a.contacts)) as contact_id, a.r
            from _account a join account_country using (account_id)
        ), drawn as (
            select *, (hash(contact_id, r, 1) % 1000003)::bigint as r1, (hash(contact_id, r, 2) % 1000003)::bigint as r2,
                   (hash(contact_id, r, 3) % 1000003)::bigint as r3
            from each
        )
        select contact_id::integer as contact_id, account_id::integer as account_id,
               c.first[1 + r1 % len(c.first)] as first_name, c.last[1 + r2 % len(c.last)] as last_name,
               replace(plain(first_name || '.' || last_name), ' ', '') || '.' || contact_id || '@' || substr(a.website, 13) as email,
               {_list(w["titles"])}[1 + r3 % {len(w["titles"])}] as title,
               {_list(w["buying_roles"][kind])}[1 + r3 % 7] as buying_role, a.created_at
        from drawn join country c using (country_no) join company.account a using (account_id)
        order by contact_id
        """
    )
    con.unregister("_account")
    con.execute("drop table industry; drop table country; drop table account_country; drop macro plain")


def _list(values: list[str]) -> str:
    return "[" + ", ".join("'" + v.replace("'", "''") + "'" for v in values) + "]"


# Deals


def _deal_rows(
    con: duckdb.DuckDBPyConnection, rng: np.random.Generator, deals: Deals, kind: Kind, creator: np.ndarray, calendar: Calendar
) -> None:
    n = len(deals)
    w = words()
    # What exit_qualified asks for: a need in words, a contact, and an account of a known kind. One of them is missing.
    bare = deals.defects["exit_qualified"] & ~deals.defects["no_contact"]
    luck = rng.random(n)
    reason = rng.integers(0, len(w["loss_reasons"]), n)
    reason = np.where(deals.defects["exit_closed_lost"], np.where(rng.random(n) < 0.65, -1, -2), reason)
    closed = (deals.status > 0) & (deals.end <= deals.stop)
    con.register(
        "_deal",
        {
            "deal_id": np.arange(1, n + 1),
            "account_id": np.where(bare & (luck > 0.75), 0, deals.account + 1),
            "pipeline_no": deals.pipeline,
            "team_no": deals.team,
            "described": np.where(bare & (luck <= 0.75), 1, np.where((deals.status == 0) | (rng.random(n) < 0.88), 0, 2)),
            "r": rng.integers(0, 1 << 40, n),
            "sites": 1 + rng.geometric(0.25, n),
            "source": rng.integers(0, len(w["sources"]), n),
            "at": calendar.micros(deals.created),
            "created_by": creator,
            "deleted_at": np.where(deals.deleted, calendar.micros(np.where(deals.deleted, deals.stop, -1.0)), 0),
            "merged_into": deals.merged_into + 1,
            "lost": closed & (deals.status == 2),
            "won": closed & (deals.status == 1),
            "reason": reason,
            "manager": FIRST_MANAGER + deals.team,
        },
    )
    types = w["types"][kind]
    con.execute(
        f"""
        create table company.deal as
        with numbered as (select *, row_number() over (order by position) - 1 as pipeline_no from company.pipeline),
        teams as (select rowid as team_no, region from company.team),
        filled as (
            select d.*, a.name as account_name, a.currency as account_currency, p.pipeline, p.kind, coalesce(a.region, t.region) as region,
                   {_list(w["products"])}[1 + r % {len(w["products"])}] as product
            from _deal d join numbered p using (pipeline_no) join teams t using (team_no)
            left join company.account a on a.account_id = d.account_id
        )
        select deal_id::integer as deal_id,
               coalesce(account_name, 'Enquiry ' || deal_id) || ' - ' || product
                 || case when kind = 'expansion' then ' roll-out' when sites > 2 then ' ' || sites || ' sites' else '' end as name,
               nullif(account_id, 0)::integer as account_id, pipeline,
               case kind when 'expansion' then '{types["expansion"]}' when 'partner' then '{types["partner"]}'
                         else '{types["new"]}' end as type,
               {_list(w["sources"])}[1 + source] as lead_source,
               case described when 0 then
                    replace(replace(replace({_list(w["descriptions"])}[1 + (r // 8) % {len(w["descriptions"])}],
                      '{{account}}', coalesce(account_name, 'The customer')), '{{product}}', product), '{{sites}}', sites::varchar)
                  when 1 then nullif({_list(["", *w["short_descriptions"]])}[1 + (r // 8) % {len(w["short_descriptions"]) + 1}], '')
               end as description,
               coalesce(account_currency, 'EUR') as currency, make_timestamptz("at") as created_at, created_by::integer as created_by,
               deleted_at <> 0 as is_deleted, case when deleted_at <> 0 then make_timestamptz(deleted_at) end as deleted_at,
               case when deleted_at <> 0 then manager::integer end as deleted_by, nullif(merged_into, 0)::integer as merged_into,
               case when lost and reason = -2 then 'Other' when lost then {_list(w["loss_reasons"])}[1 + nullif(reason, -1)] end
                 as loss_reason,
               case when won then {_list(w["win_reasons"])}[1 + (r // 64) % {len(w["win_reasons"])}] end as win_reason,
               case when lost and (reason = 3 or r % 5 = 0)
                    then {_list(w["competitors"])}[1 + (r // 512) % {len(w["competitors"])}] end as competitor,
               region, product as product_line, null::timestamptz as last_modified_at
        from filled order by deal_id
        """
    )
    con.unregister("_deal")
    con.execute("create table company.planted (deal_id integer, defect varchar)")
    for defect, flags in deals.defects.items():
        con.register("_planted", {"deal_id": np.flatnonzero(flags) + 1})
        con.execute("insert into company.planted select deal_id, $1 from _planted", [defect])
        con.unregister("_planted")


def _event_tables(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        """
        create table company.deal_change (deal_id integer, "at" timestamptz, seq integer, person_id integer, field varchar,
                                          old varchar, new varchar);
        create table company.deal_contact (deal_id integer, contact_id integer, role varchar, is_primary boolean, created_at timestamptz);
        create table company.activity (activity_id integer, deal_id integer, contact_id integer, owner_id integer, kind varchar,
                                       subject varchar, due_date date, start_at timestamptz, end_at timestamptz,
                                       completed_at timestamptz, status varchar, created_at timestamptz);
        """
    )


def _add_changes(con: duckdb.DuckDBPyConnection, columns: dict[str, np.ndarray], calendar: Calendar) -> None:
    groups = words()["next_steps"]
    con.register("_change", columns)
    templates = "[" + ", ".join(_list(g) for g in groups) + "]"
    sizes = [len(g) for g in groups]
    con.execute(
        f"""
        insert into company.deal_change
        with numeric as (
            select deal + 1 as deal_id, t, make_timestamptz("at") as "at", person_id, field,
                   case when isnan(num) then null else num end as num, aux, due
            from _change
        ), valued as (
            select deal_id, t, "at", person_id, field,
                   case field when 3 then printf('%.2f', num)
                              when 4 then (date '{calendar.today}' + num::integer)::varchar
                              else num::bigint::varchar end as new
            from numeric where field not in (0, 6)
            union all
            -- a stage brings its default probability and forecast category along
            select deal_id, t, "at", person_id, part.field, part.new
            from numeric n join company.stage s on s.stage_no = n.num::integer,
                 lateral (values (0, s.stage), (1, s.probability::varchar), (2, s.forecast_category)) part(field, new)
            where n.field = 0
            union all
            select n.deal_id, t, "at", n.person_id, field,
                   replace(replace(templates[1 + num::integer // 100][1 + num::integer % 100 % sizes[1 + num::integer // 100]],
                     '{{c}}', c.first_name), '{{d}}', strftime(date '{calendar.today}' + due::integer, '%-d %b'))
            from numeric n cross join (select {templates} as templates, {sizes} as sizes)
            left join company.contact c on c.contact_id = n.aux
            where field = 6
        ), chained as (
            select *, lag(new) over (partition by deal_id, field order by t) as old,
                   row_number() over (partition by deal_id, field order by t) as nth
            from valued
        )
        select deal_id, "at", row_number() over (partition by deal_id order by t, field) as seq, person_id,
               {_list(list(FIELDS))}[1 + field], old, new
        from chained
        -- a value that stays is no change; the first row of a field is its creation
        where nth = 1 or new is distinct from old
        order by deal_id, seq
        """
    )
    con.unregister("_change")


def _add_contacts(con: duckdb.DuckDBPyConnection, columns: dict[str, np.ndarray], kind: Kind) -> None:
    con.register("_attached", columns)
    con.execute(
        f"""insert into company.deal_contact
            select deal + 1, contact_id, {_list(words()["roles"][kind])}[1 + role], is_primary, make_timestamptz("at")
            from _attached order by deal, "at", contact_id"""
    )
    con.unregister("_attached")


def _add_activities(con: duckdb.DuckDBPyConnection, columns: dict[str, np.ndarray], calendar: Calendar) -> None:
    kinds = ["call", "email", "meeting", "task"]
    subjects = "[" + ", ".join(_list(words()["subjects"][k]) for k in kinds) + "]"
    con.register("_activity", columns)
    con.execute(
        f"""
        insert into company.activity
        with first as (select coalesce(max(activity_id), 0) as n from company.activity),
        placed as (
            select first.n + row_number() over (order by deal, "at", "created", kind, subject) as activity_id, a.*,
                   make_timestamptz("at") as "when", ("when" at time zone '{calendar.zone.key}')::date as day
            from _activity a, first
        )
        select activity_id, deal + 1, nullif(a.contact_id, 0), owner_id, {_list(kinds)}[1 + kind],
               replace({subjects}[1 + kind][1 + subject], '{{c}}', coalesce(c.first_name, 'the customer')), day,
               case when kind = 2 then "when" - to_minutes(minutes * done::integer) end,
               case when kind = 2 then "when" + to_minutes(minutes * (not done)::integer) end,
               case when done then "when" end,
               case when done then 'completed' else 'open' end,
               greatest(d.created_at, least(make_timestamptz("created"), "when" - to_minutes(minutes * done::integer)))
        from placed a join company.deal d on d.deal_id = deal + 1 left join company.contact c on c.contact_id = nullif(a.contact_id, 0)
        order by activity_id
        """
    )
    con.unregister("_activity")


def _finish(con: duckdb.DuckDBPyConnection, deals: Deals, owner: np.ndarray, calendar: Calendar) -> None:
    """Stamps that follow from the events, and planted defects that follow from other planted ones."""
    con.execute(
        """
        update company.deal set last_modified_at = greatest(changed."at", coalesce(deal.deleted_at, changed."at"))
        from (select deal_id, max("at") as "at" from company.deal_change group by 1) changed
        where changed.deal_id = deal.deal_id
        """
    )
    # An account without industry and size fails its deals, so none has been made so: only the deals without account are bare.
    con.execute(
        f"""
        insert into company.planted
        with current_value as (
            select deal_id, field, last(new order by seq) as value, last("at" order by seq) as "at" from company.deal_change group by 1, 2
        ), opened as (
            select v.deal_id, s.canonical
            from current_value v join company.deal d using (deal_id) join company.stage s on s.pipeline = d.pipeline and s.stage = v.value
            where v.field = 'stage' and not s.is_closed and not d.is_deleted and s.canonical not in ('prequalified', 'unmapped')
        ), implied as (
            select deal_id, 'next_activity_missing' as defect from opened
            where canonical <> 'qualified'
              and deal_id not in (select deal_id from company.activity where status = 'open' and due_date >= date '{calendar.today}')
            union all
            select o.deal_id, 'next_step_stale' from opened o join current_value v using (deal_id)
            where v.field = 'next_step' and v.value is not null
              and date_diff('day', (v."at" at time zone '{calendar.zone.key}')::date, date '{calendar.today}')
                  > case canonical when 'negotiation' then 10 when 'proposal' then 14 else 21 end
        )
        select * from implied anti join company.planted using (deal_id, defect)
        """
    )
