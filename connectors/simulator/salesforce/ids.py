"""Salesforce ids: three characters of key prefix, twelve of instance and number, three of checksum.

The checksum tells the case of the first fifteen characters, so that systems that ignore case can still tell two ids apart.
"""

from __future__ import annotations

import re

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
INSTANCE = "5g0000"  # the part between key prefix and number
FIRST_NUMBER = 62**4 * 3  # where numbers start, so that ids look like those of an org that has lived

_ID = re.compile(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?\Z")


def checksum(id15: str) -> str:
    """The three characters that make an 18-character id of a 15-character one."""
    blocks = (id15[start : start + 5] for start in (0, 5, 10))
    return "".join(SUFFIX[sum(1 << place for place, c in enumerate(block) if "A" <= c <= "Z")] for block in blocks)


def make_id(prefix: str, number: int) -> str:
    """The 18-character id of the record `number` (below 62**6) of the object with that key prefix."""
    digits = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    id15 = prefix + INSTANCE + digits
    return id15 + checksum(id15)


def to_18(text: str) -> str | None:
    """An id in 18 characters; None when the text is no id. The checksum of a longer one is set right, as the API does."""
    return text[:15] + checksum(text[:15]) if _ID.match(text) else None


def sql_id(prefix: str, number: str) -> str:
    """`make_id` as SQL over a whole-number expression.

    Written out for the one shape that our ids have, because the general checksum, expanded per id, takes DuckDB longer to plan
    than the whole rest of a small statement.
    """
    places = [f"(({number}) // {62**power}) % 62" for power in range(5, -1, -1)]
    digits = " || ".join(f"substr('{DIGITS}', (1 + {place})::INTEGER, 1)" for place in places)
    capital = [f"({place} BETWEEN 10 AND 35)::INTEGER" for place in places]
    last = " + ".join(f"{capital[1 + bit]} * {1 << bit}" for bit in range(5))
    first = checksum(prefix + INSTANCE + "000000")[0]
    return (
        f"('{prefix}{INSTANCE}' || {digits} || '{first}' || CASE WHEN {places[0]} BETWEEN 10 AND 35 THEN 'Q' ELSE 'A' END "
        f"|| substr('{SUFFIX}', 1 + {last}, 1))"
    )


def sql_macros() -> list[str]:
    """DuckDB macro sf_id18(text): an id of 15 or 18 characters in 18; any other text as it is."""

    def block(start: int) -> str:
        bits = " + ".join(f"(substr(x, {start + place}, 1) BETWEEN 'A' AND 'Z')::INTEGER * {1 << place}" for place in range(5))
        return f"substr('{SUFFIX}', 1 + {bits}, 1)"

    suffix = f"{block(1)} || {block(6)} || {block(11)}"
    return [
        "CREATE OR REPLACE MACRO sf_id18(id) AS CASE WHEN regexp_full_match(id, '[A-Za-z0-9]{15}([A-Za-z0-9]{3})?') "
        f"THEN list_transform([substr(id, 1, 15)], lambda x: x || {suffix})[1] ELSE id END"
    ]
