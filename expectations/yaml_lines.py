"""YAML with the line of every key, so that an error can point at the place in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from expectations.errors import RuleError

Place = tuple[str | int, ...]


class Document:
    """A parsed file: `data` (plain dicts, lists and scalars) and `where(place)`, its `file:line`."""

    def __init__(self, path: Path, data: Any, lines: dict[Place, int]) -> None:
        self.path, self.data, self._lines = path, data, lines

    def where(self, *place: str | int) -> str:
        """`file:line` of a key, or of the nearest thing around it that is there."""
        while place and place not in self._lines:
            place = place[:-1]
        return f"{self.path}:{self._lines.get(place, 1)}"


def read(path: Path) -> Document:
    """Reads one YAML document. Duplicate keys, which YAML parsers let the last one win, are refused."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RuleError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RuleError("the file is not UTF-8 text", where=str(path)) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RuleError(f"this is not valid YAML: {error.problem}", where=f"{path}:{line}") from error
    lines: dict[Place, int] = {}
    data = None if root is None else _plain(root, (), lines, path)
    return Document(path, data, lines)


def _plain(node: yaml.Node, place: Place, lines: dict[Place, int], path: Path) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in result:
                raise RuleError(f"the key '{key}' stands twice", where=f"{path}:{line}", fix="Remove one of them.")
            lines[(*place, key)] = line
            result[key] = _plain(value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise RuleError(f"'{node.value}' is not a valid value", where=f"{path}:{node.start_mark.line + 1}") from error
    finally:
        loader.dispose()
