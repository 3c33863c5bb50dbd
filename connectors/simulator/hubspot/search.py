"""The search endpoint: filters as SQL over the index, which never holds archived records and may lag behind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from connectors.simulator.clock import SimClock
from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType, Property
from connectors.simulator.hubspot.errors import ApiError, InvalidValue, validation
from connectors.simulator.hubspot.pages import Pages, Shape
from connectors.simulator.hubspot.records import Records
from connectors.simulator.hubspot.store import Store
from connectors.simulator.hubspot.values import compared

CAP = 10_000  # results of one query that can be paged through
MOST_RESULTS = 200
MOST_GROUPS, MOST_FILTERS, MOST_FILTERS_OF_GROUP = 5, 25, 10
COMPARISONS = {"EQ": "=", "NEQ": "<>", "LT": "<", "LTE": "<=", "GT": ">", "GTE": ">="}
OPERATORS = {*COMPARISONS, "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"}


class Search:
    def __init__(self, store: Store, catalogue: Catalogue, records: Records, pages: Pages, clock: SimClock) -> None:
        self.store, self.catalogue, self.records, self.pages, self.clock = store, catalogue, records, pages, clock

    def find(self, object_type: ObjectType, request: Mapping[str, Any]) -> tuple[int, list[str], int | None]:
        """(total, records as JSON texts, `after` of the next page or None); raises HubSpot's 400."""
        limit, after = _whole(request, "limit", 10), _whole(request, "after", 0)
        if not 0 <= limit <= MOST_RESULTS:
            raise validation(f"The requested limit of {limit} is not between 0 and {MOST_RESULTS}.")
        if after + limit > CAP:
            raise ApiError(
                400,
                f"Paging through results is limited to the first {CAP} of a query; asked for {limit} after {after}.",
                "VALIDATION_ERROR",
                context={"limit": [str(CAP)]},
            )
        with self.store.lock:
            where, params = self._where(object_type, request)
            order = self._order(object_type, request.get("sorts") or [])
            total, ids = self.store.rows(
                f"""with hit as materialized (
                      select _id, {order[0]} as key from {self.records.relation(object_type, index=True)}
                      where _archived_at is null and _merged_into is null and {where})
                    select (select count(*) from hit),
                           (select list(_id order by key {order[1]}, _id)
                            from (from hit order by key {order[1]}, _id limit {limit} offset {after}))""",
                params,
            )[0]
            shape = Shape(properties=[*(request.get("properties") or ())])
            found = self.pages.render(object_type, ids or [], shape, index=True)
        onward = after + limit
        return total, found, (onward if onward < total and limit else None)

    def _order(self, object_type: ObjectType, sorts: Sequence[Any]) -> tuple[str, str]:
        if len(sorts) > 1:
            raise validation("Only one sort is supported per query")
        if not sorts:
            return "_created_at", "asc"
        sort = sorts[0]
        if isinstance(sort, str):
            sort = {"propertyName": sort.lstrip("-"), "direction": "DESCENDING" if sort.startswith("-") else "ASCENDING"}
        direction = {"ASCENDING": "asc", "DESCENDING": "desc"}.get(sort.get("direction") or "ASCENDING")
        if direction is None:
            raise validation(f"Invalid sort direction {sort.get('direction')}")
        prop = self._property(object_type, sort.get("propertyName"))
        return self.catalogue.typed(object_type, prop, self.clock.now()), f"{direction} nulls last"

    def _where(self, object_type: ObjectType, request: Mapping[str, Any]) -> tuple[str, list[Any]]:
        groups = request.get("filterGroups") or ([{"filters": request["filters"]}] if request.get("filters") else [])
        if len(groups) > MOST_GROUPS:
            raise validation(f"A query can have at most {MOST_GROUPS} filter groups, this one has {len(groups)}")
        filters = [group.get("filters") or [] for group in groups]
        if any(len(group) > MOST_FILTERS_OF_GROUP for group in filters) or sum(map(len, filters)) > MOST_FILTERS:
            raise validation(f"A query can have at most {MOST_FILTERS_OF_GROUP} filters in a group and {MOST_FILTERS} in all")
        params: list[Any] = []
        alternatives = [" and ".join(self._filter(object_type, one, params) for one in group) or "true" for group in filters]
        where = " or ".join(f"({one})" for one in alternatives) or "true"
        words = str(request.get("query") or "")
        if len(words) > 3000:
            raise validation("The query is longer than 3000 characters")
        if words:
            names = [name for name in object_type.searchable if name in object_type.properties]
            texts = [self.catalogue.text(object_type, object_type.properties[name], self.clock.now()) for name in names]
            matches = " or ".join(f"contains(lower({text}), ?)" for text in texts)
            params += [words.lower()] * len(names)
            where = f"({where}) and ({matches or 'false'})"
        return f"({where})", params

    def _property(self, object_type: ObjectType, name: Any) -> Property:
        prop = object_type.properties.get(str(name))
        if prop is None:
            raise validation(
                "There was a problem with the request.",
                errors=[{"message": f'A property named "{name}" does not exist', "code": "PROPERTY_DOESNT_EXIST"}],
            )
        return prop

    def _filter(self, object_type: ObjectType, one: Mapping[str, Any], params: list[Any]) -> str:
        name, operator = str(one.get("propertyName")), one.get("operator")
        if operator not in OPERATORS:
            raise validation(f"Invalid input JSON: operator {operator} is none of {', '.join(sorted(OPERATORS))}")
        if name.startswith("associations."):
            return self._associated(object_type, name.removeprefix("associations."), one, params)
        prop = self._property(object_type, name)
        now = self.clock.now()
        if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
            return f"{self.catalogue.text(object_type, prop, now)} is {'not ' if operator == 'HAS_PROPERTY' else ''}null"
        left = self.catalogue.typed(object_type, prop, now)
        fold = prop.type == "string"  # text is compared without case
        if fold:
            left = f"lower({left})"
        try:
            if operator in ("IN", "NOT_IN"):
                values = one.get("values")
                if not values:
                    raise _incomplete(name, operator, "values")
                # HubSpot lowers what it has stored but not what it is given here: capitals in `values` never match.
                params += [compared(prop, value) for value in values]
                return f"{left} {'not in' if operator == 'NOT_IN' else 'in'} ({', '.join('?' * len(values))})"
            if one.get("value") in (None, ""):
                raise _incomplete(name, operator, "value")
            value = compared(prop, one["value"])
            if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
                text = f"lower({self.catalogue.text(object_type, prop, now)})"
                patterns = _tokens(str(one["value"]))
                params += patterns
                matches = " and ".join(f"regexp_matches({text}, ?)" for _ in patterns)
                return f"({matches})" if operator == "CONTAINS_TOKEN" else f"not ({matches})"
            if operator == "BETWEEN":
                if one.get("highValue") in (None, ""):
                    raise _incomplete(name, operator, "highValue")
                params += [_folded(value, fold), _folded(compared(prop, one["highValue"]), fold)]
                return f"{left} between ? and ?"
            params.append(_folded(value, fold))
            return f"{left} {COMPARISONS[operator]} ?"
        except InvalidValue as invalid:
            raise validation(
                "There was a problem with the request.",
                errors=[{"message": f"{name}: {invalid.message}", "code": invalid.code}],
            ) from None

    def _associated(self, object_type: ObjectType, other: str, one: Mapping[str, Any], params: list[Any]) -> str:
        to_type = self.catalogue.find(other)
        values = one.get("values") or ([one["value"]] if one.get("value") else [])
        if one["operator"] not in ("EQ", "IN") or not values:
            raise validation(f"associations.{other} can be filtered by EQ and IN with ids only")
        params += [to_type.name, object_type.name, *(int(value) for value in values)]
        places = ", ".join("?" * len(values))
        return f"_id in (select to_id from association where from_type = ? and to_type = ? and from_id in ({places}) and not hidden)"


def _incomplete(name: str, operator: str, key: str) -> ApiError:
    return validation(f"{operator} on {name} needs {key}")


def _folded(value: Any, fold: bool) -> Any:
    return value.lower() if fold and isinstance(value, str) else value


def _tokens(text: str) -> list[str]:
    """Regular expressions, one per word; `*` stands for any letters and digits."""
    words = re.split(r"[^\w*]+", text.lower())
    letter = r"[\p{L}\p{N}_]"
    edge = r"[^\p{L}\p{N}_]"
    return [f"(^|{edge}){re.escape(word).replace(re.escape('*'), letter + '*')}({edge}|$)" for word in words if word.strip("*")] or [""]


def _whole(request: Mapping[str, Any], key: str, default: int) -> int:
    value = request.get(key)
    if value in (None, ""):
        return default
    try:
        return max(0, int(str(value)))
    except ValueError:
        raise validation(f"{key} must be a whole number, not {value}") from None
