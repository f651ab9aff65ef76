"""`output_schema`: the part of JSON Schema that says what an output must look like.

A keyword outside of this part is an error when the workflow is loaded: one that was passed
over in silence would promise a check that nobody makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}
_SIZES = ("minLength", "maxLength", "minItems", "maxItems")
_BOUNDS = ("minimum", "maximum")
_NOTES = ("title", "description")
_LISTS = ("type", "enum", "const", "properties", "required", "items", "additionalProperties")
_KNOWN = frozenset((*_LISTS, *_SIZES, *_BOUNDS, *_NOTES))
_DEEPEST = 50


def check_schema(schema: Any, where: str = "output_schema", depth: int = 0) -> list[str]:
    """What is wrong with a schema; empty when it can be used."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return [f"{where}: must be an object, at most {_DEEPEST} deep"]
    rules = cast("dict[str, Any]", schema)
    found = [
        f"{where}: {key} is not understood here; known are {', '.join(sorted(_KNOWN))}"
        for key in rules
        if key not in _KNOWN
    ]
    kinds: Any = rules.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else _as_list(kinds):
        if kind not in _TYPES:
            found.append(f"{where}.type: {kind!r} is none of {', '.join(_TYPES)}")
    if "enum" in rules and not isinstance(rules["enum"], list):
        found.append(f"{where}.enum: must be a list")
    required = rules.get("required", [])
    if not isinstance(required, list) or not all(isinstance(r, str) for r in _as_list(required)):
        found.append(f"{where}.required: must be a list of names")
    if not isinstance(rules.get("additionalProperties", True), bool):
        found.append(f"{where}.additionalProperties: must be true or false")
    for key in _SIZES:
        if key in rules and not (_TYPES["integer"](rules[key]) and rules[key] >= 0):
            found.append(f"{where}.{key}: must be a whole number from 0")
    for key in _BOUNDS:
        if key in rules and not _TYPES["number"](rules[key]):
            found.append(f"{where}.{key}: must be a number")
    properties = rules.get("properties", {})
    if not isinstance(properties, dict):
        found.append(f"{where}.properties: must be an object")
    else:
        for name, inner in cast("dict[str, Any]", properties).items():
            found += check_schema(inner, f"{where}.properties.{name}", depth + 1)
    if "items" in rules:
        found += check_schema(rules["items"], f"{where}.items", depth + 1)
    return found


def find_mismatch(value: Any, schema: dict[str, Any], where: str = "output") -> str | None:
    """The first place where a value is not what a checked schema asks for."""
    kinds = schema.get("type")
    if kinds is not None:
        wanted = [kinds] if isinstance(kinds, str) else _as_list(kinds)
        if not any(_TYPES[kind](value) for kind in wanted):
            return f"{where} is not of type {' or '.join(wanted)}"
    if "const" in schema and not _equal(value, schema["const"]):
        return f"{where} is not {schema['const']!r}"
    if "enum" in schema and not any(_equal(value, one) for one in schema["enum"]):
        return f"{where} is none of {schema['enum']!r}"
    if isinstance(value, str):
        return _check_size(len(value), schema, "Length", where)
    if _TYPES["number"](value):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            return f"{where} is {value}, out of its bounds"
        return None
    if isinstance(value, list):
        return _check_list(cast("list[Any]", value), schema, where)
    if isinstance(value, dict):
        return _check_object(cast("dict[str, Any]", value), schema, where)
    return None


def _check_list(value: list[Any], schema: dict[str, Any], where: str) -> str | None:
    wrong = _check_size(len(value), schema, "Items", where)
    if wrong is None and "items" in schema:
        for at, inner in enumerate(value):
            wrong = find_mismatch(inner, schema["items"], f"{where}[{at}]")
            if wrong is not None:
                break
    return wrong


def _check_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> str | None:
    properties: dict[str, Any] = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{where} has no {name}"
    for name, inner in value.items():
        if name in properties:
            wrong = find_mismatch(inner, properties[name], f"{where}.{name}")
            if wrong is not None:
                return wrong
        elif not schema.get("additionalProperties", True):
            return f"{where} has {name}, which is not allowed"
    return None


def _check_size(size: int, schema: dict[str, Any], what: str, where: str) -> str | None:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", size)
    return None if least <= size <= most else f"{where} has {size}, not {least} to {most}"


def _equal(one: Any, other: Any) -> bool:
    # As JSON sees it: true is not 1.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True) or (
        _TYPES["number"](one) and _TYPES["number"](other) and one == other
    )


def _as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]
