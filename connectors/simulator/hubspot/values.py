"""Property values as HubSpot takes and keeps them: always text, checked against the property's type."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from connectors.simulator.hubspot.catalogue import Property
from connectors.simulator.hubspot.errors import InvalidValue

LONGEST_TEXT = 65_536
External = Callable[[Property], Collection[str] | None]


def normalise(prop: Property, value: Any, external: External) -> str | None:
    """The text that HubSpot keeps of a given value, None for "cleared"; raises InvalidValue.

    external: the values allowed by something outside the property (stages, owners, currencies), or None when unknown.
    """
    text = _text(value)
    if text == "":
        return None
    if prop.type == "number":
        return _number(text)
    if prop.type == "datetime":
        return iso(_instant(text))
    if prop.type == "date":
        return _date(text)
    if prop.type == "bool":
        if text.lower() not in ("true", "false"):
            raise InvalidValue("INVALID_BOOLEAN", f"{text} is not a valid boolean. Valid values are: true, false")
        return text.lower()
    if prop.type == "enumeration":
        return _options(prop, text, external)
    if len(text) > LONGEST_TEXT:
        raise InvalidValue("PROPERTY_VALUE_TOO_LONG", f"The value is longer than {LONGEST_TEXT} characters")
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return iso(value)
    return "" if value is None else str(value)


def _number(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InvalidValue("INVALID_DOUBLE", f"{text} was not a valid number.") from None
    if not number.is_finite():
        raise InvalidValue("INVALID_DOUBLE", f"{text} was not a valid number.")
    return text.strip()


def _instant(text: str) -> datetime:
    """An instant from ISO 8601 or from milliseconds since 1970; a plain date is its midnight in UTC."""
    try:
        if text.lstrip("-").isdigit():
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        instant = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise InvalidValue("INVALID_DATE", f"{text} was not a valid long or ISO 8601 date.") from None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _date(text: str) -> str:
    """A date as YYYY-MM-DD. HubSpot takes one as an instant too, which then must be midnight in UTC."""
    instant = _instant(text)
    if instant.time() != time(0):
        raise InvalidValue("INVALID_DATE", f"{text} is at {instant:%H:%M:%S}.{instant.microsecond // 1000:03d} UTC, not midnight!")
    return instant.date().isoformat()


def _options(prop: Property, text: str, external: External) -> str:
    known: Collection[str] | None = external(prop) if prop.externalOptions else prop.option_values
    chosen = text.split(";") if prop.fieldType == "checkbox" else [text]
    if known is not None and (unknown := [value for value in chosen if value and value not in known]):
        allowed = ", ".join(sorted(known)[:50])
        raise InvalidValue("INVALID_OPTION", f"{unknown[0]} was not one of the allowed options: [{allowed}]")
    return ";".join(value for value in chosen if value) if prop.fieldType == "checkbox" else text


def compared(prop: Property, value: Any) -> Any:
    """A search filter's value in the type in which the property is compared; raises InvalidValue."""
    text = _text(value)
    if prop.type == "number":
        number = Decimal(_number(text))
        return int(number) if number == number.to_integral_value() else float(number)
    if prop.type == "datetime":
        return _instant(text)
    if prop.type == "date":
        return _instant(text).date()
    if prop.type == "bool":
        return text.lower() == "true"
    return text


def iso(instant: datetime | date) -> str:
    """2026-11-23T08:00:00.123Z, and without the fraction when it is zero, as HubSpot writes."""
    if not isinstance(instant, datetime):
        return f"{instant.isoformat()}T00:00:00Z"
    instant = instant.astimezone(UTC)
    millis = instant.microsecond // 1000
    return instant.strftime("%Y-%m-%dT%H:%M:%S") + (f".{millis:03d}Z" if millis else "Z")


def probability_text(probability: float) -> str:
    """A stage's probability on a deal: HubSpot widens a 32-bit float and prints every digit of what came out."""
    return format(Decimal(struct.unpack("f", struct.pack("f", probability))[0]), "f")
