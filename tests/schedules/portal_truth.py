"""What a warehouse must hold of a HubSpot portal, computed from the simulated portal's own tables, and how a real one differs from it.

Nothing of the code under test is used here: the definitions are those of docs/sync.md and of the column comments, written again.
Left out of the raw payload: numbers that HubSpot counts anew without a stamp and that core derives from their source (contacts, the
primary company, activities ahead), and, where a rate or a formula was changed, what is calculated by it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import duckdb
from schedules.kept import ZONE, Differences, invariants, pushes, stage_moves, table

from connectors.simulator.hubspot import HubSpotPortal

HOME = "EUR"
PRIMARY = 5  # association type of a deal's primary company
# Properties of a deal with a column of their own, which core.opportunity.custom does not repeat.
COLUMNS = {
    "hs_object_id", "dealname", "amount", "amount_in_home_currency", "deal_currency_code", "closedate", "createdate", "hs_createdate", "dealstage",
    "pipeline", "dealtype", "description", "hubspot_owner_id", "hs_next_step", "hs_deal_stage_probability", "hs_manual_forecast_category",
    "hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost", "num_associated_contacts", "closed_lost_reason", "notes_next_activity_date",
    "hs_lastmodifieddate",
}  # fmt: skip
UNSTAMPED = {"num_associated_contacts", "hs_primary_associated_company", "notes_next_activity_date", "hs_number_of_overdue_tasks"}
# Properties whose past HubSpot tells, and the attribute of a version that each is.
TOLD = {
    "dealstage": "crm_stage", "amount": "amount", "closedate": "close_date", "hubspot_owner_id": "owner_id", "hs_next_step": "next_step",
    "hs_manual_forecast_category": "forecast_category", "pipeline": "pipeline", "deal_currency_code": "currency",
}  # fmt: skip
CATEGORY = {"OMIT": "omitted", "COMMIT": "commit", "PIPELINE": "pipeline", "BEST_CASE": "best_case", "MOST_LIKELY": "most_likely", "CLOSED": "closed"}
SOON = timedelta(minutes=1)
KEPT = 20  # values of a property that HubSpot remembers


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


def day(text: str | None) -> date | None:
    """The day that people see for a stored instant."""
    at = instant(text)
    return at.astimezone(ZONE).date() if at else None


def cents(text: str | None) -> Decimal | None:
    return Decimal(text).quantize(Decimal("0.01"), ROUND_HALF_UP) if text else None


def records(portal: HubSpotPortal, object_type: str, where: str = "true") -> dict[str, dict[str, Any]]:
    """Records by id: each property's text as HubSpot delivers it, and the record's own `_created_at` and `_updated_at`."""
    kind, now = portal.catalogue.types[object_type], portal.clock.now()
    properties = list(kind.properties.values())
    columns = ", ".join(portal.catalogue.text(kind, prop, now) for prop in properties)
    names = ["_id", "_created_at", "_updated_at", *(prop.name for prop in properties)]
    found = portal.rows(f"select _id::varchar, _created_at, _updated_at, {columns} from {kind.table} where {where} order by _id")
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def survivors(portal: HubSpotPortal, object_type: str) -> dict[str, str]:
    """Merged record -> the record that it is today, which may be archived; left out where that one is gone for good."""
    steps = dict(portal.rows(f"select _id::varchar, _merged_into::varchar from object_{object_type}"))
    found = {}
    for loser in (id_ for id_, into in steps.items() if into):
        at = loser
        while steps.get(at):
            at = steps[at]
        if at in steps:
            found[loser] = at
    return found


LIVE = "_archived_at is null and _merged_into is null"


def differences(
    portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, *, now: datetime, source: str, computed: bool = True
) -> list[str]:
    """Everything that the warehouse says otherwise than the portal, in sentences; nothing when they agree.

    computed: calculated properties of payloads have to agree too, because no rate and no formula was changed, or all was read after it.
    """
    found = Differences()
    live = records(portal, "deals", LIVE)
    ours = {row["opportunity_id"]: row for row in table(con, "select * from core.opportunity where source = ?", source)}
    for missing in sorted(live.keys() - ours.keys()):
        found.append(f"core.opportunity {missing}: is in the portal, not in the warehouse")
    for id_, row in sorted(ours.items()):
        found.note("core.opportunity.is_deleted", id_, id_ not in live, row["is_deleted"])
        found.note("core.opportunity.deleted_at is set", id_, id_ not in live, row["deleted_at"] is not None)
    _merged(portal, found, "core.opportunity.merged_into", "deals", {i: (row["merged_into"], i in live) for i, row in ours.items()}, source)
    both = sorted(live.keys() & ours.keys())
    for id_, at in portal.rows("select _id::varchar, _archived_at from object_deals where _archived_at is not null and _merged_into is null"):
        if id_ in ours:  # what went before it was ever read may have left no trace
            found.note("core.opportunity.deleted_at", id_, utc(at), ours[id_]["deleted_at"])
    _payloads(portal, con, found, live, both, source, computed=computed)
    told = _told(portal, live)
    _columns(portal, con, found, live, ours, both, told, now=now, source=source)
    _around(portal, con, found, both, source)
    _people(portal, con, found, source)
    _stages(portal, con, found, ours, both, source)
    _versions(portal, con, found, live, both, told, source)
    _fields(portal, con, found, source)
    _rates(portal, con, found, source)
    invariants(con, found, "hubspot")
    return found


def _rates(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, source: str) -> None:
    """What a unit of each currency is worth today: the last rate that was set."""
    theirs = {str(rate["fromCurrencyCode"]): rate["conversionRate"] for rate in portal.exchange_rates()}
    ours = dict(con.execute("select currency, rate::double from core.exchange_rate where source = ? and valid_to is null", [source]).fetchall())
    found.note("core.exchange_rate", "today's", theirs, ours)


def _merged(portal: HubSpotPortal, found: Differences, where: str, object_type: str, ours: dict[str, tuple[str | None, bool]], source: str) -> None:
    """Losers of a merge lead to their survivor, over however many merges; nothing else claims to have been merged."""
    theirs = survivors(portal, object_type)
    prefix = f"{source}:"
    for id_, (_, is_live) in sorted(ours.items()):
        at, seen = id_, {id_}
        while (into := ours.get(at, (None, False))[0]) and into.removeprefix(prefix) not in seen:
            at = into.removeprefix(prefix)
            seen.add(at)
        if id_ in theirs and theirs[id_] in ours:
            found.note(where, id_, theirs[id_], at)
        elif is_live and at != id_:
            found.append(f"{where} {id_}: is live in the portal, merged into {at} in the warehouse")


def _payloads(
    portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, live: Any, both: list[str], source: str, *, computed: bool
) -> None:
    """Every listed property of every live deal, in raw and in custom."""
    raw = dict(con.execute("select id, payload::varchar from raw.hubspot_deal where source = ? and not is_deleted", [source]).fetchall())
    custom = dict(con.execute("select opportunity_id, custom::varchar from core.opportunity where source = ?", [source]).fetchall())
    shown = [p for p in portal.catalogue.types["deals"].properties.values() if p.listed and p.name not in UNSTAMPED and (computed or not p.formula)]
    for id_ in both:
        payload, rest = json.loads(raw.get(id_) or "{}"), json.loads(custom[id_] or "{}")
        for prop in shown:
            said = live[id_][prop.name] or None
            found.note(f"raw.hubspot_deal.{prop.name}", id_, said, payload.get(prop.name) or None)
            own = prop.name in COLUMNS or prop.name.startswith("plumbline_")
            found.note(f"core.opportunity.custom.{prop.name}", id_, None if own else said, rest.get(prop.name) or None)


def _told(portal: HubSpotPortal, live: Any) -> dict[str, dict[str, list[tuple[datetime, str | None]]]]:
    """Deal -> property -> what it was from when on, as the portal's history says; a value never written since has one entry, the first."""
    told: dict[str, dict[str, list[tuple[datetime, str | None]]]] = {id_: defaultdict(list) for id_ in live}
    for deal, name, value, at in portal.rows("select object_id::varchar, property, value, written_at from history_deals order by written_at, seq"):
        if deal in told and name in TOLD:
            told[deal][name].append((utc(at), value or None))
    for id_, deal in live.items():
        for name in TOLD:
            if not told[id_][name] and deal[name]:
                told[id_][name].append((utc(deal["_created_at"]), deal[name]))
    return told


def pipeline_labels(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    """Pipeline -> its name. Of one that was removed the API tells nothing any more: it has the name that was last read, else its id."""
    read = dict(con.execute("select pipeline_id, pipeline from core.pipeline where source = ?", [source]).fetchall())
    found = portal.rows("select id, label, archived_at is not null from pipeline")
    return {id_: read.get(id_, id_) if archived else label for id_, label, archived in found}


def _columns(
    portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, live: Any, ours: Any, both: list[str], told: Any, *, now: datetime,
    source: str,
) -> None:  # fmt: skip
    """core.opportunity, column by column, and what history says: stage events, closings, pushes."""
    companies = records(portal, "companies", LIVE)
    owners = {owner["id"]: (f"{owner['firstName']} {owner['lastName']}".strip() or owner["email"], not owner["archived"], owner["type"])
              for archived in (False, True) for owner in portal.owners(archived=archived)}  # fmt: skip
    pipelines = pipeline_labels(portal, con, source)
    stages = {row[0]: row[1:] for row in portal.rows("select id, label, probability, is_closed from stage")}
    closed = {id_: bool(stage[2]) for id_, stage in stages.items()}
    attached: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    primary = {}
    for deal, kind, other, category, type_id in portal.rows(
        "select from_id::varchar, to_type, to_id::varchar, category, type_id from association where from_type = 'deals' and not hidden"
    ):
        attached[deal][kind].add(other)
        if kind == "companies" and category == "HUBSPOT_DEFINED" and type_id == PRIMARY:
            primary[deal] = other
    events = defaultdict(list)
    for row in table(con, """select e.*, o.opportunity_id from core.stage_event e join core.opportunity o using (opportunity_key)
                             where o.source = ? order by e."at" """, source):  # fmt: skip
        events[row["opportunity_id"]].append(row)
    for id_ in both:
        deal, row = live[id_], ours[id_]
        moves = stage_moves(told[id_]["dealstage"])
        if len(told[id_]["dealstage"]) <= KEPT:
            said = {(e["at"], e["from_crm_stage"], e["to_crm_stage"]) for e in events[id_]}
            found.note("core.stage_event", id_, sorted(set(moves), key=repr), sorted(said, key=repr))
            found.note("core.stage_event, rows", id_, len(said), len(events[id_]))
        closings = [at for at, before, after in moves if closed.get(after, False) and not closed.get(before, False)]
        label, default, _ = stages.get(deal["dealstage"], (deal["dealstage"], None, None))
        owner = owners.get(deal["hubspot_owner_id"])
        # Without a primary company any of those attached may stand for it.
        account = primary.get(id_) or (row["account_id"] if row["account_id"] in attached[id_]["companies"] else None)
        is_closed = deal["hs_is_closed"] == "true"
        last = instant(deal["notes_last_updated"])
        expected: dict[str, Any] = {
            "name": deal["dealname"], "account_id": account, "account_name": companies.get(account or "", {}).get("name"),
            "owner_id": deal["hubspot_owner_id"] or None, "owner_name": owner and owner[0],
            "owner_active": owner and owner[1] and owner[2] == "PERSON",
            "pipeline": pipelines.get(deal["pipeline"], deal["pipeline"]), "pipeline_id": deal["pipeline"], "type": deal["dealtype"] or None,
            "crm_stage": deal["dealstage"], "crm_stage_label": label, "is_closed": is_closed, "is_won": deal["hs_is_closed_won"] == "true",
            "amount": cents(deal["amount"]), "currency": deal["deal_currency_code"] or HOME,
            "probability": _fraction(deal["hs_deal_stage_probability"]), "stage_default_probability": _fraction(default),
            "forecast_category": CATEGORY.get(deal["hs_manual_forecast_category"] or ""), "created_at": utc(deal["_created_at"]),
            "close_date": day(deal["closedate"]), "crm_modified_at": utc(deal["_updated_at"]),
            "stage_entered_at": instant(deal["hs_v2_date_entered_current_stage"]) or moves[-1][0],
            "closed_at": (closings[-1] if closings else None) if is_closed else None, "contact_count": len(attached[id_]["contacts"]),
            "description": deal["description"] or None, "next_step": deal["hs_next_step"] or None, "lost_reason": deal["closed_lost_reason"] or None,
            "has_line_items": float(deal["hs_num_of_associated_line_items"] or 0) > 0,
            "last_activity_at": last if last and last <= now else None,
        }  # fmt: skip
        if told[id_]["closedate"] and len(told[id_]["closedate"]) <= KEPT:
            expected["close_date_pushes"] = pushes([(at, day(value)) for at, value in told[id_]["closedate"] if value], moves, closed)
        if (steps := told[id_]["hs_next_step"]) and len(steps) <= KEPT:
            before = [None, *(value for _, value in steps)]
            expected["next_step_changed_at"] = max(at for (at, value), former in zip(steps, before, strict=False) if value != former)
        for name, value in expected.items():
            found.note(f"core.opportunity.{name}", id_, value, row[name])
        home = cents(deal["amount_in_home_currency"])
        if (home is None or row["amount_home"] is None or abs(home - row["amount_home"]) > Decimal("0.01")):
            found.note("core.opportunity.amount_home", id_, home, row["amount_home"])
        ahead = instant(deal["notes_next_activity_date"])
        following = ahead if ahead and ahead > now else None
        # What was to happen today counts until the day ends, though the portal tells it no more: it clears it without a stamp.
        ahead_of_us = row["next_activity_at"]
        earlier = ahead_of_us is not None and ahead_of_us <= now and ahead_of_us.astimezone(ZONE).date() == now.astimezone(ZONE).date()
        if ahead_of_us not in (following, ahead) and not (following is None and earlier):
            found.note("core.opportunity.next_activity_at", id_, following, row["next_activity_at"])


def _fraction(value: Any) -> Decimal | None:
    """A probability as decimal(7, 6): HubSpot prints the digits of a 32-bit float."""
    return None if value in (None, "") else Decimal(str(value)).quantize(Decimal("0.000001"), ROUND_HALF_UP)


def _around(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, both: list[str], source: str) -> None:
    """Contacts of live deals, with a word that people gave to the association as the role, and companies."""
    deals = set(both)
    roles: dict[tuple[str, str], set[str]] = defaultdict(set)
    for deal, contact, label in portal.rows("""
        select a.from_id::varchar, a.to_id::varchar, t.label
        from association a
        left join association_type t
          on t.from_type = a.from_type and t.to_type = a.to_type and t.category = a.category and t.type_id = a.type_id
        where a.from_type = 'deals' and a.to_type = 'contacts' and not a.hidden
    """):  # fmt: skip
        if deal in deals:
            roles[f"{source}:{deal}", contact] |= {label} - {None}
    alive = "from core.contact_role semi join (from core.opportunity where not is_deleted) using (opportunity_key)"
    kept = {(row["opportunity_key"], row["contact_id"]): row["role"] for row in table(con, alive)}
    found.note("core.contact_role", "", sorted(roles), sorted(kept))
    for key in sorted(roles.keys() & kept.keys()):
        if (roles[key] or kept[key]) and kept[key] not in roles[key]:
            found.note("core.contact_role.role", str(key), sorted(roles[key]), kept[key])
    companies = records(portal, "companies", LIVE)
    mine = {row["account_id"]: row for row in table(con, "select * from core.account where source = ?", source)}
    for id_, company in sorted(companies.items()):
        row = mine.get(id_)
        employees = company["numberofemployees"]
        theirs = (company["name"], company["industry"], int(employees) if employees else None, False)
        found.note("core.account", id_, theirs, row and (row["name"], row["industry"], row["employees"], row["is_deleted"]))
    for id_ in sorted(mine.keys() - companies.keys()):
        found.note("core.account.is_deleted", id_, True, mine[id_]["is_deleted"])
    _merged(portal, found, "core.account.merged_into", "companies", {i: (row["merged_into"], i in companies) for i, row in mine.items()}, source)


def _people(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, source: str) -> None:
    """Owners, those who left too."""
    theirs = {
        owner["id"]: (f"{owner['firstName']} {owner['lastName']}".strip() or owner["email"], owner["email"], not owner["archived"],
                      owner["type"] == "PERSON", (owner.get("teams") or [{}])[0].get("name"))
        for archived in (False, True) for owner in portal.owners(archived=archived)
    }  # fmt: skip
    kept = {row["owner_id"]: tuple(row[n] for n in ("name", "email", "is_active", "is_seller", "team")) for row in
            table(con, "select * from core.owner where source = ?", source)}  # fmt: skip
    for id_ in sorted(theirs.keys() | kept.keys()):
        found.note("core.owner", id_, theirs.get(id_), kept.get(id_))


def _stages(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, ours: Any, both: list[str], source: str) -> None:
    """The stage map knows what the portal defines, and deals are in the stage that the map in force says."""
    pipelines = {row["pipeline_id"]: row for row in table(con, "select * from core.pipeline where source = ?", source)}
    labels = pipeline_labels(portal, con, source)
    for id_, label, archived in portal.rows("select id, label, archived_at is not null from pipeline"):
        row = pipelines.get(id_)
        if archived and (row is None or row["label"] is None):
            continue  # it went before it was ever read; at most the deals that were in it tell that there was one
        said = row and ((row["pipeline"], row["label"]) if not archived else (label, label), row["is_active"])
        found.note("core.pipeline", id_, ((label, label), not archived), said)
    kept = {(row["pipeline"], row["crm_stage"]): row for row in table(con, "select * from core.stage_map where source = ?", source)}
    for pipeline, id_, label, probability, closed, gone, archived in portal.rows("""
        select s.pipeline, s.id, s.label, s.probability, s.is_closed, s.archived_at is not null, p.archived_at is not null
        from stage s join pipeline p on p.id = s.pipeline
    """):
        row = kept.get((labels[pipeline], id_))
        if row is None and (archived or gone):
            continue
        if archived:
            found.note("core.stage_map.is_active", f"{labels[pipeline]}/{id_}", False, row and row["is_active"])
            continue
        theirs = (label, _fraction(probability), closed, closed and probability == 1, not gone)
        said = row and (row["label"], row["probability"], row["is_closed"], row["is_won"], row["is_active"])
        found.note("core.stage_map", f"{labels[pipeline]}/{id_}", theirs, said)
    for id_ in both:
        row = ours[id_]
        mapped = kept[row["pipeline"], row["crm_stage"]]["stage"] if (row["pipeline"], row["crm_stage"]) in kept else None
        stage = "closed_won" if row["is_won"] else "closed_lost" if row["is_closed"] else mapped
        if stage in ("closed_won", "closed_lost") and not row["is_closed"]:
            stage = "unmapped"
        found.note("core.opportunity.stage", id_, stage, row["stage"])


def _versions(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, live: Any, both: list[str], told: Any, source: str) -> None:
    """What a deal was, from its first day on: as its property histories say at each instant of which they tell anything."""
    pipelines = pipeline_labels(portal, con, source)
    plain = {
        "amount": cents, "closedate": day, "pipeline": lambda text: pipelines.get(text, text),
        "hs_manual_forecast_category": lambda text: CATEGORY.get(text or ""), "deal_currency_code": lambda text: text or HOME,
    }  # fmt: skip
    versions = defaultdict(list)
    for row in table(con, "select * from core.opportunity_version order by opportunity_key, valid_from"):
        versions[row["opportunity_key"]].append(row)
    for id_ in both:
        mine = versions[f"{source}:{id_}"]
        found.note("core.opportunity_version begins", id_, utc(live[id_]["_created_at"]), mine[0]["valid_from"] if mine else None)
        if max(map(len, told[id_].values()), default=0) > KEPT:
            continue
        begun = utc(live[id_]["_created_at"])
        # What is first told soon after a deal was made counts as having come with it.
        firsts = {name: entries[0] for name, entries in told[id_].items() if entries}
        told_first = {TOLD[name]: (at, plain.get(name, lambda text: text)(value)) for name, (at, value) in firsts.items()}
        for at in sorted({at for entries in told[id_].values() for at, _ in entries}):
            state = {}
            for name, attribute in TOLD.items():
                value = next((value for since, value in reversed(told[id_][name]) if since <= at), None)
                state[attribute] = plain.get(name, lambda text: text)(value)
            then = next((v for v in mine if v["valid_from"] <= at and (v["valid_to"] is None or at < v["valid_to"])), None)
            said = then and {attribute: then[attribute] for attribute in state}
            if said is None:
                found.append(f"core.opportunity_version {id_}: there is none of {at:%d %b %H:%M:%S.%f}")
                continue
            for attribute, value in state.items():
                first = told_first.get(attribute)
                if first and at < first[0] <= begun + SOON and said[attribute] == first[1]:
                    continue
                found.note(f"core.opportunity_version.{attribute}", f"{id_} at {at:%d %b %H:%M:%S.%f}", value, said[attribute])


def _fields(portal: HubSpotPortal, con: duckdb.DuckDBPyConnection, found: Differences, source: str) -> None:
    """core.field lists the deal's properties, as the portal describes them now."""
    theirs = {p.name: (p.type, p.label, p.custom, p.calculated or p.formula is not None)
              for p in portal.catalogue.types["deals"].properties.values() if p.listed}  # fmt: skip
    told = table(con, "select * from core.field where source = ? and object = 'deals'", source)
    kept = {row["name"]: (row["type"], row["label"], row["is_custom"], row["is_calculated"]) for row in told if row["type"]}
    for name in sorted(theirs.keys() | kept.keys()):
        found.note("core.field", name, theirs.get(name), kept.get(name))
    for name in sorted({row["name"] for row in told} - kept.keys()):  # came without having been announced
        found.note("core.field, not listed", name, True, name in portal.catalogue.types["deals"].properties)
    lost = {row["name"] for row in table(con, "select name from core.field_lost where source = ? and object = 'deals'", source)}
    for name in sorted(lost & theirs.keys()):
        found.append(f"core.field_lost {name}: is visible in the portal")
