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


def sql_macros() -> list[str]:
    """The same as DuckDB macros: sf_id(prefix, number), sf_id18(text), NULL where the text is no id."""

    def block(start: int) -> str:
        bits = " + ".join(
            f"CASE WHEN substr(id15, {start + place}, 1) BETWEEN 'A' AND 'Z' THEN {1 << place} ELSE 0 END" for place in range(5)
        )
        return f"substr('{SUFFIX}', 1 + {bits}, 1)"

    digits = " || ".join(f"substr('{DIGITS}', 1 + ((number // {62**power}) % 62)::INTEGER, 1)" for power in range(5, -1, -1))
    return [
        f"CREATE OR REPLACE MACRO sf_checksum(id15) AS {block(1)} || {block(6)} || {block(11)}",
        f"CREATE OR REPLACE MACRO sf_id15(prefix, number) AS prefix || '{INSTANCE}' || {digits}",
        "CREATE OR REPLACE MACRO sf_with_checksum(id15) AS id15 || sf_checksum(id15)",
        "CREATE OR REPLACE MACRO sf_id(prefix, number) AS sf_with_checksum(sf_id15(prefix, number))",
        "CREATE OR REPLACE MACRO sf_id18(id) AS "
        "CASE WHEN regexp_full_match(id, '[A-Za-z0-9]{15}([A-Za-z0-9]{3})?') THEN sf_with_checksum(substr(id, 1, 15)) END",
    ]
