"""What the org's admins do in Setup: fields, stages, record types, rates, tracking, and the rights of the API user."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import formula as formulas
from connectors.simulator.salesforce import ids
from connectors.simulator.salesforce.access import TRACKABLE
from connectors.simulator.salesforce.catalogue import Field, SObject, make_field
from connectors.simulator.salesforce.objects import FORECAST_CATEGORY_NAMES
from connectors.simulator.salesforce.state import OrgState

TRACKED = [
    "StageName", "Amount", "CloseDate", "OwnerId", "NextStep", "Probability", "ForecastCategoryName", "AccountId", "Type",
    "Loss_Reason__c",
]  # fmt: skip
SET_UP = {"BusinessProcess", "CurrencyType", "DatedConversionRate", "OpportunityStage", "Organization", "Profile", "RecordType", "UserRole"}
Rule = tuple[str, str, str, str, str | None]  # object, name, formula, message, field


class SetUp(OrgState):
    """An org as its admins change it. What they set lasts with the org's file."""

    def __init__(self, path: Path | None, clock: SimClock, faults: Faults) -> None:
        super().__init__(path, clock, faults)
        self._compiled_rules: dict[tuple[str, str], str] = {}

    # --- fields -----------------------------------------------------------------------------------------------------------

    def add_field(
        self,
        sobject: str,
        name: str,
        type: str,
        label: str | None = None,
        length: int | None = None,
        formula: str | None = None,
        external_id: bool = False,
        picklist: Sequence[str] | None = None,
        hidden: bool = False,
    ) -> None:
        """Add a custom field; old records get it empty and without a stamp. `formula` is Salesforce formula text.

        type: as in describes (string, textarea, picklist, double, currency, date, datetime, boolean, reference …). hidden: nobody
        has granted it to the API user yet, as of a field made by API; people fill it all the same.
        """
        o = self.objects[sobject]
        if not name.endswith("__c"):
            raise ValueError(f"A custom field's name ends with __c, not {name}")
        if name.lower() in {n.lower() for n in o.fields}:
            raise ValueError(f"There is already a field named {name} on {sobject}")
        keys: dict[str, Any] = {"formula": formula} if formula is not None else {}
        if type == "string":
            length = length or 255
        if length is not None:
            keys["length"] = length
        if external_id:
            keys |= {"externalId": True, "idLookup": True, "unique": True}
        if picklist is not None:
            keys["picklistValues"] = list(picklist)
        new = make_field(name, type, label, **keys)
        new.hidden = hidden
        if formula is not None:
            new.sql = f"({formulas.to_sql(formula, o, self.objects)})::{new.sql_type}"
        with self.lock:
            if new.stored:
                self.alter(sobject, f'ADD COLUMN "{name}" {new.sql_type}')
                if new.type == "boolean":
                    self.con.execute(f'UPDATE "{sobject}" SET "{name}" = false')
            self._remember(o, new, whole=True)
            o.add(new)

    def remove_field(self, sobject: str, name: str) -> None:
        """Delete a custom field with its values; no stamp moves. Raises ValueError for standard fields and where a formula names it."""
        o = self.objects[sobject]
        f = self._custom(o, name)
        users = [
            f"{other.name}.{g.name}" for other in self.objects.values() for g in other.fields.values() if _names(g.formula, name)
        ]  # fmt: skip
        users += [rule[1] for rule in self._rules() if rule[0] == sobject and _names(rule[2], name)]
        if users:
            raise ValueError(f"{sobject}.{name} is referenced elsewhere: {', '.join(users)}")
        with self.lock:
            if name in self.tracked_fields and sobject == "Opportunity":
                self.set_field_history_tracking([n for n in self.tracked_fields if n != name])
            o.remove(f.name)
            if f.stored:
                self.alter(sobject, f'DROP COLUMN "{name}"')
            self._forget(o, f)
            self.con.execute("INSERT INTO simulator.field VALUES (?, ?, NULL, NULL, false, true)", [o.name, f.name])

    def change_type(self, sobject: str, name: str, type: str, **keys: Any) -> None:
        """Give a custom field another type; values that do not fit it are lost, and no stamp moves.

        type: as in describes, not reference; keys: of the describe, such as length, precision, scale or picklistValues. Raises
        ValueError for standard fields, formulas and lookups.
        """
        o = self.objects[sobject]
        f = self._custom(o, name)
        if not f.stored or "reference" in {f.type, type}:
            raise ValueError(f"The type of {sobject}.{name} cannot be changed to {type}")
        if type == "string":
            keys.setdefault("length", 255)
        new = make_field(name, type, f.label, **keys)
        new.hidden, new.locked = f.hidden, f.locked
        value = f'"{name}"'
        if f.sql_type.startswith("DECIMAL") and new.is_text:
            value = f"regexp_replace(regexp_replace({value}::VARCHAR, '(\\.\\d*?)0+$', '\\1'), '\\.$', '')"
        if new.is_text and new.definition["length"]:
            value = f"nullif(left({value}::VARCHAR, {new.definition['length']}), '')"
        with self.lock:
            self.alter(sobject, f'ALTER COLUMN "{name}" SET DATA TYPE {new.sql_type} USING TRY_CAST({value} AS {new.sql_type})')
            if new.type == "boolean":
                self.con.execute(f'UPDATE "{sobject}" SET "{name}" = false WHERE "{name}" IS NULL')
            self._remember(o, new, whole=True)
            o.fields[name] = new  # keeps its place among the fields
            o.add(new)

    def set_formula(self, sobject: str, name: str, formula: str) -> None:
        """Change what a formula field computes: every record shows it at once, and no stamp moves."""
        o = self.objects[sobject]
        f = o.fields[name]
        if f.formula is None:
            raise ValueError(f"{sobject}.{name} is no formula field")
        with self.lock:
            f.sql = f"({formulas.to_sql(formula, o, self.objects)})::{f.sql_type}"
            f.formula = f.definition["calculatedFormula"] = formula
            self._remember(o, f, whole=True)

    def hide_field(self, sobject: str, name: str, *, hidden: bool = True) -> None:
        """Take the field from the API user by field-level security: describes omit it, SOQL knows no such column."""
        o = self.objects[sobject]
        o.fields[name].hidden = hidden
        with self.lock:
            self._remember(o, o.fields[name])

    def remember_field(self, sobject: str, name: str) -> None:
        """Keep a field's changed definition with the org's file."""
        with self.lock:
            self._remember(self.objects[sobject], self.objects[sobject].fields[name], whole=True)

    def _custom(self, o: SObject, name: str) -> Field:
        f = o.fields.get(name)
        if f is None or not f.definition["custom"]:
            raise ValueError(f"{o.name} has no custom field named {name}")
        return f

    def _remember(self, o: SObject, f: Field, *, whole: bool = False) -> None:
        before = self.con.execute(
            "SELECT definition FROM simulator.field WHERE sobject = ? AND name = ? AND removed IS NOT TRUE", [o.name, f.name]
        ).fetchone()  # fmt: skip
        definition = orjson.dumps(f.definition).decode() if whole else before[0] if before else None
        self._forget(o, f)
        self._compiled_rules.clear()
        self.con.execute(
            "INSERT INTO simulator.field VALUES (?, ?, ?, ?, ?, false)", [o.name, f.name, definition, f.formula, f.hidden]
        )  # fmt: skip

    def _forget(self, o: SObject, f: Field) -> None:
        self.con.execute("DELETE FROM simulator.field WHERE sobject = ? AND name = ?", [o.name, f.name])

    # --- history tracking and validation rules ----------------------------------------------------------------------------

    @property
    def tracked_fields(self) -> list[str]:
        """Opportunity fields of which OpportunityFieldHistory is written."""
        return self.setting("tracked_fields", TRACKED)

    @tracked_fields.setter
    def tracked_fields(self, fields: Sequence[str]) -> None:
        self.set_field_history_tracking(fields)

    def set_field_history_tracking(self, fields: Sequence[str]) -> None:
        """Track these fields of Opportunity from now on, by their API names; none: tracking is off, and what was written stays."""
        known = self.objects["Opportunity"].fields
        wrong = [name for name in fields if name not in known or not known[name].stored]
        if wrong or len(fields) > TRACKABLE:
            raise ValueError(f"Up to {TRACKABLE} stored fields of Opportunity can be tracked, not {', '.join(wrong) or len(fields)}")
        self.keep("tracked_fields", list(fields))

    def add_validation_rule(self, sobject: str, name: str, formula: str, message: str, field: str | None = None) -> None:
        """Refuse writes after which `formula` is true, with FIELD_CUSTOM_VALIDATION_EXCEPTION."""
        formulas.to_sql(formula, self.objects[sobject], self.objects)  # says what is wrong with it
        self.keep("rules", [*self._rules(), [sobject, name, formula, message, field]])

    def remove_validation_rule(self, name: str) -> None:
        self.keep("rules", [rule for rule in self._rules() if rule[1] != name])

    def rules(self, sobject: str) -> list[tuple[str, str, str | None]]:
        """SQL, message and field of the object's validation rules."""
        return [(self._rule_sql(of, formula), message, field) for of, _, formula, message, field in self._rules() if of == sobject]

    def _rule_sql(self, sobject: str, formula: str) -> str:
        if (sobject, formula) not in self._compiled_rules:
            self._compiled_rules[sobject, formula] = formulas.to_sql(formula, self.objects[sobject], self.objects)
        return self._compiled_rules[sobject, formula]

    def _rules(self) -> list[Rule]:
        return self.setting("rules", [])

    # --- stages, record types, sales processes, currencies ----------------------------------------------------------------

    def add_stage(
        self,
        master_label: str,
        *,
        probability: int,
        forecast_category: str,
        is_closed: bool = False,
        is_won: bool = False,
        sort_order: int | None = None,
        api_name: str | None = None,
        is_active: bool = True,
    ) -> str:
        """Add a value of StageName with what it sets. forecast_category: Omitted, Pipeline, BestCase, MostLikely, Forecast or Closed."""
        values = {
            "MasterLabel": master_label, "ApiName": api_name or master_label, "IsActive": is_active, "IsClosed": is_closed, "IsWon": is_won,
            "DefaultProbability": probability, **_category(forecast_category),
        }  # fmt: skip
        with self.lock:
            last = self.con.execute('SELECT coalesce(max("SortOrder"), 0) FROM "OpportunityStage"').fetchall()[0][0]
            values["SortOrder"] = sort_order if sort_order is not None else last + 1
            return self._add("OpportunityStage", values)

    def change_stage(self, api_name: str, **values: Any) -> None:
        """Change what a stage sets: master_label, probability, forecast_category, is_closed, is_won, sort_order, is_active.

        Deals in it keep their probability and forecast category; whether they count as closed or won follows, without a stamp.
        """
        columns = {
            "master_label": "MasterLabel", "probability": "DefaultProbability", "is_closed": "IsClosed", "is_won": "IsWon",
            "sort_order": "SortOrder", "is_active": "IsActive",
        }  # fmt: skip
        category = values.pop("forecast_category", None)
        changed = {columns[name]: value for name, value in values.items()} | (_category(category) if category else {})
        with self.lock:
            found = self.con.execute('SELECT "Id" FROM "OpportunityStage" WHERE "ApiName" = ?', [api_name]).fetchone()
            if found is None:
                raise ValueError(f"There is no stage {api_name}")
            self.change_set_up("OpportunityStage", found[0], changed)
            if {"IsClosed", "IsWon"} & changed.keys():
                self.con.execute(
                    'UPDATE "Opportunity" SET "IsClosed" = s."IsClosed", "IsWon" = s."IsWon" FROM "OpportunityStage" s '
                    'WHERE s."ApiName" = "StageName" AND s."Id" = ?', [found[0]],
                )  # fmt: skip

    def add_sales_process(
        self, name: str, *, stages: Sequence[str] | None = None, description: str | None = None, is_active: bool = True
    ) -> str:
        """A sales process that record types of Opportunity can have. stages: API names; None: all of the org. Gives its id."""
        values = {"Name": name, "Description": description, "TableEnumOrId": "Opportunity", "IsActive": is_active, "_stages": stages}
        return self._add("BusinessProcess", values)

    def set_process_stages(self, process: str, stages: Sequence[str] | None) -> None:
        """Say which stages deals of a sales process can be moved to: API names; None: all of the org. Deals stay where they are."""
        self.change_set_up("BusinessProcess", process, {"_stages": stages})

    def stages_of(self, record_type: str) -> list[dict[str, Any]]:
        """The active stages that a record type's sales process offers, in order; of the master record type all. Keys as columns."""
        columns = ["ApiName", "MasterLabel", "IsClosed", "IsWon", "DefaultProbability", "ForecastCategoryName"]
        found = self.rows(
            f"""
            SELECT {", ".join(f's."{name}"' for name in columns)} FROM "OpportunityStage" s
            LEFT JOIN (SELECT p._stages FROM "RecordType" r JOIN "BusinessProcess" p ON p."Id" = r."BusinessProcessId" WHERE r."Id" = ?) p
            ON true
            WHERE s."IsActive" AND (p._stages IS NULL OR list_contains(p._stages, s."ApiName")) ORDER BY s."SortOrder"
            """,
            [record_type],
        )
        return [dict(zip(columns, row, strict=True)) for row in found]

    def add_record_type(
        self, name: str, *, developer_name: str | None = None, sales_process: str | None = None, is_active: bool = True
    ) -> str:
        """A record type of Opportunity. sales_process: id; default: the oldest one. Gives its id."""
        with self.lock:
            oldest = self.con.execute('SELECT min("Id") FROM "BusinessProcess"').fetchall()[0][0]
            values = {
                "Name": name, "DeveloperName": developer_name or re.sub(r"[^A-Za-z0-9]+", "_", name), "SobjectType": "Opportunity",
                "IsActive": is_active, "BusinessProcessId": sales_process or oldest,
            }  # fmt: skip
            return self._add("RecordType", values)

    def rename_record_type(self, record_type: str, name: str, developer_name: str | None = None) -> None:
        """Give the record type with this id another label, and another DeveloperName if one is given. Deals do not move."""
        self.change_set_up("RecordType", record_type, {"Name": name} | ({"DeveloperName": developer_name} if developer_name else {}))

    def set_rate(self, iso_code: str, rate: Decimal | float | str) -> None:
        """Units of the currency per unit of the corporate one, from now on. A new currency is added. No deal's stamp moves."""
        with self.lock:
            found = self.con.execute('SELECT "Id" FROM "CurrencyType" WHERE "IsoCode" = ?', [iso_code]).fetchone()
            if found is not None:
                self.change_set_up("CurrencyType", found[0], {"ConversionRate": Decimal(str(rate))})
                return
            values = {
                "IsoCode": iso_code, "ConversionRate": Decimal(str(rate)), "DecimalPlaces": 2, "IsActive": True, "IsCorporate": False,
            }  # fmt: skip
            self._add("CurrencyType", values)

    def set_dated_rate(self, iso_code: str, start: date, rate: Decimal | float | str) -> str:
        """The rate of a currency from a day on, until the next dated one. Gives the record's id."""
        with self.lock:
            others = self.con.execute(
                'SELECT "Id", "StartDate" FROM "DatedConversionRate" WHERE "IsoCode" = ? ORDER BY "StartDate"', [iso_code]
            ).fetchall()
            for rate_id, day in others:
                if day == start:
                    self.change_set_up("DatedConversionRate", rate_id, {"ConversionRate": Decimal(str(rate))})
                    return rate_id
            before = [rate_id for rate_id, day in others if day < start]
            after = [day for _, day in others if day > start]
            if before:
                self.change_set_up("DatedConversionRate", before[-1], {"NextStartDate": start})
            values = {
                "IsoCode": iso_code, "ConversionRate": Decimal(str(rate)), "StartDate": start,
                "NextStartDate": after[0] if after else date(9999, 12, 31),
            }  # fmt: skip
            return self._add("DatedConversionRate", values)

    def change_set_up(self, sobject: str, id: str, values: Mapping[str, Any]) -> None:
        """Change a record of the org's set-up, with its own stamps and no other side effect. Raises ValueError for business records."""
        if sobject not in SET_UP or not values:
            raise ValueError(f"{sobject} is no part of the set-up, or nothing was given")
        stamp = self.now().replace(tzinfo=None)
        whole = {**values, "LastModifiedDate": stamp, "LastModifiedById": self.admin_id, "SystemModstamp": stamp}
        with self.lock:
            sets = ", ".join(f'"{name}" = ?' for name in whole)
            self.con.execute(f'UPDATE "{sobject}" SET {sets} WHERE "Id" = ?', [*whole.values(), id])

    def _add(self, sobject: str, values: Mapping[str, Any]) -> str:
        audit = {"CreatedById": self.admin_id, "LastModifiedById": self.admin_id}
        return self.insert(sobject, [{**audit, **values}])[0]

    # --- rights of the API user -------------------------------------------------------------------------------------------

    def hide_object(self, sobject: str, *, hidden: bool = True) -> None:
        """Take the object from the API user: it is not there for it."""
        self.keep("hidden_objects", self._with(self.setting("hidden_objects", []), sobject, hidden))
        self._apply_rights()

    def set_read_only(self, read_only: bool = True) -> None:
        """Take every right to create, edit or delete from the API user. People go on working."""
        self.keep("read_only", read_only)
        self._apply_rights()

    def lock_field(self, sobject: str, name: str, *, locked: bool = True) -> None:
        """Let the API user read this field, but not write it, by field-level security."""
        if name not in self.objects[sobject].fields:
            raise ValueError(f"{sobject} has no field named {name}")
        self.keep("locked_fields", self._with(self.setting("locked_fields", []), [sobject, name], locked))
        self._apply_rights()

    @property
    def view_all(self) -> bool:
        """Whether ObjectPermissions say that the API user sees all records, whoever owns them."""
        return self.setting("view_all", True)

    def set_view_all(self, view_all: bool) -> None:
        """What ObjectPermissions say of "View All"; which records the API user cannot see is told to `hide_records`."""
        self.keep("view_all", view_all)

    def hide_records(self, sobject: str, record_ids: Iterable[str], *, hidden: bool = True) -> None:
        """Take these records from the API user by sharing, with what follows their sharing: no query, getUpdated or getDeleted has them.

        No stamp moves, neither now nor when they are shown again.
        """
        listed = [ids.to_18(record_id) or record_id for record_id in record_ids]
        with self.lock:
            self.con.execute("DELETE FROM simulator.unshared WHERE sobject = ? AND id IN (SELECT unnest(?::VARCHAR[]))", [sobject, listed])
            if hidden:
                self.con.execute("INSERT INTO simulator.unshared SELECT ?, unnest(?::VARCHAR[])", [sobject, listed])
            self._unshared = {name for (name,) in self.con.execute("SELECT DISTINCT sobject FROM simulator.unshared").fetchall()}

    @staticmethod
    def _with(listed: Sequence[Any], item: Any, wanted: bool) -> list[Any]:
        return [one for one in listed if one != item] + ([item] if wanted else [])

    def _apply_rights(self) -> None:
        """Put what the settings say of the API user's rights into the schema."""
        hidden, locked = self.setting("hidden_objects", []), self.setting("locked_fields", [])
        read_only = self.setting("read_only", False)
        for o in self.objects.values():
            o.hidden, o.read_only = o.name in hidden, read_only
            for f in o.fields.values():
                f.locked = [o.name, f.name] in locked

    # --- the log of deletions and the recycle bin -------------------------------------------------------------------------

    def purge_delete_log(self, before: datetime) -> None:
        """Forget deletions before an instant: getDeleted's earliestDateAvailable moves there."""
        with self.lock:
            self.con.execute("DELETE FROM simulator.deletion WHERE deleted_at < ?", [_plain(before)])
            kept = self.setting("log_since", None)
            since = max(before, datetime.fromisoformat(kept)) if kept else before
            self.keep("log_since", since.isoformat())

    def log_since(self) -> datetime | None:
        """The instant before which the log of deletions was purged."""
        kept = self.setting("log_since", None)
        return datetime.fromisoformat(kept) if kept else None


def _names(formula: str | None, field: str) -> bool:
    """Whether a formula names the field."""
    return formula is not None and re.search(rf"\b{re.escape(field)}\b", formula, re.IGNORECASE) is not None


def _plain(instant: datetime) -> datetime:
    """An aware instant as the org's tables keep it."""
    return instant.astimezone(UTC).replace(tzinfo=None)


def _category(name: str) -> dict[str, str]:
    if name not in FORECAST_CATEGORY_NAMES:
        raise ValueError(f"forecast_category is one of {', '.join(FORECAST_CATEGORY_NAMES)}, not {name}")
    return {"ForecastCategory": name, "ForecastCategoryName": FORECAST_CATEGORY_NAMES[name]}
