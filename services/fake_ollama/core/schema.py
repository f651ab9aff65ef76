"""Values that conform to a JSON schema, the same ones each time."""

from __future__ import annotations

from typing import Any, cast

# Deeper than any schema that is not recursive.
MAX_DEPTH = 12

_BY_FORMAT = {
    "date": "2025-01-01",
    "time": "00:00:00Z",
    "date-time": "2025-01-01T00:00:00Z",
    "email": "fake@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def conform(schema: Any, text: str) -> Any:
    """A value that the schema accepts; free strings are `text`.

    Covers what structured answers use: types, enum, const, default, properties, items,
    references, alternatives and the usual bounds. `pattern` is not looked at.
    """
    return _Conforming(schema, text).value(schema, 0)


class _Conforming:
    def __init__(self, root: Any, text: str) -> None:
        self._root = root
        self._text = text

    def value(self, given: Any, depth: int) -> Any:
        if not isinstance(given, dict) or depth > MAX_DEPTH:
            return None if depth > MAX_DEPTH else self._text
        schema = cast("dict[str, Any]", given)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choose(schema["enum"])
        if "$ref" in schema:
            return self.value(self._follow(schema["$ref"]), depth + 1)
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self.value(self._prefer(schema[word], depth), depth + 1)
        if schema.get("allOf"):
            merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
            for part in schema["allOf"]:
                merged = _merge(merged, self._resolve(part))
            return self.value(merged, depth + 1)
        kind = schema.get("type") or _guess_type(schema)
        if isinstance(kind, list):
            kinds = cast("list[str]", kind)
            kind = next((name for name in kinds if name != "null"), "null")
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return int(_number(schema, 1))
            case "number":
                return float(_number(schema, 0))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema)

    def _choose(self, options: list[Any]) -> Any:
        # The option that the text speaks of, else the first.
        lowered = self._text.lower()
        named = (o for o in options if isinstance(o, str) and o and o.lower() in lowered)
        return next(named, options[0])

    def _prefer(self, options: list[Any], depth: int) -> Any:
        # At the end of a recursion the alternative that ends it.
        solid = [option for option in options if _as_object(option).get("type") != "null"]
        if depth > MAX_DEPTH // 2 and len(solid) < len(options):
            return {"type": "null"}
        return solid[0] if solid else options[0]

    def _resolve(self, schema: Any) -> Any:
        reference = _as_object(schema).get("$ref")
        return schema if reference is None else self._follow(reference)

    def _follow(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                found = _as_object(found).get(part, {})
        return found

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties") or {}
        required: list[str] = schema.get("required") or []
        # In a recursion only what must be there.
        names = [] if depth > MAX_DEPTH // 2 else [*properties]
        names += [name for name in required if name not in names]
        return {name: self.value(properties.get(name, {}), depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        count = int(schema.get("minItems") or (0 if depth > MAX_DEPTH // 2 else 1))
        prefix: list[Any] = schema.get("prefixItems") or []
        items = [self.value(part, depth + 1) for part in prefix]
        while len(items) < count:
            items.append(self.value(schema.get("items", {}), depth + 1))
        return items[: schema.get("maxItems", len(items))]

    def _string(self, schema: dict[str, Any]) -> str:
        text = _BY_FORMAT.get(str(schema.get("format")), self._text)
        text = text.ljust(int(schema.get("minLength") or 0), "x")
        return text[: schema.get("maxLength", len(text))]


def _as_object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _merge(into: dict[str, Any], part: Any) -> dict[str, Any]:
    merged = dict(into)
    for key, value in _as_object(part).items():
        if key == "properties":
            merged[key] = {**merged.get(key, {}), **value}
        elif key == "required":
            merged[key] = [*merged.get(key, []), *value]
        else:
            merged.setdefault(key, value)
    return merged


def _guess_type(schema: dict[str, Any]) -> str:
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _number(schema: dict[str, Any], step: float) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    multiple = schema.get("multipleOf")
    value = 1.0
    if low is not None:
        value = max(value, low)
    if above is not None and value <= above:
        value = above + (step or 0.5)
    if high is not None:
        value = min(value, high)
    if below is not None and value >= below:
        value = below - step if step else (max(above or low or below - 1, below - 1) + below) / 2
    if multiple:
        value = -(-value // multiple) * multiple
    return value
