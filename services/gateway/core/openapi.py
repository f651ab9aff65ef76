"""The fleet's API as one OpenAPI document, put together from the daemons' own.

Paths are shown as the gateway routes them, and only those it routes. Components keep their
name where every daemon that has it means the same by it, and get the daemon's name in front
where two mean different things (`queryd.Column`), with all references following.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from services.gateway.core.routing import public_path

Json = Any
Document = Mapping[str, Any]

_PREFIX = "#/components/"
_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_SECURITY = "fleet_token"


def merge_documents(
    documents: Mapping[str, Document],
    missing: Mapping[str, str],
    *,
    version: str,
    with_token: bool,
) -> dict[str, Any]:
    """One OpenAPI document for the whole fleet.

    Args:
        documents: each daemon's document by name; `gateway`'s own paths are kept as they are.
        missing: daemons whose part could not be had, with the reason; it is said in the
            description and, for programs, under `x-missing`.
        version: the fleet's version.
        with_token: whether callers need a token.
    """
    clashing = find_clashes(documents)
    paths: dict[str, Any] = {}
    components: dict[str, dict[str, Any]] = {}
    for daemon in sorted(documents):
        document = documents[daemon]
        rename = _renamer(daemon, clashing)
        for path, item in _mapping(document.get("paths")).items():
            shown = path if daemon == "gateway" else public_path(daemon, path)
            if shown is not None:
                paths[shown] = _own_item(daemon, rename_references(item, rename))
        for section, entries in _mapping(document.get("components")).items():
            for name, entry in _mapping(entries).items():
                kept = components.setdefault(section, {})
                kept[rename(section, name)] = rename_references(entry, rename)
    merged: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Lakehouse",
            "version": version,
            "description": describe_parts(documents, missing),
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": daemon} for daemon in sorted(documents)],
        "paths": dict(sorted(paths.items())),
        "components": components,
        "x-missing": dict(missing),
    }
    if with_token:
        schemes = components.setdefault("securitySchemes", {})
        schemes[_SECURITY] = {"type": "http", "scheme": "bearer"}
        merged["security"] = [{_SECURITY: []}]
    return merged


def describe_parts(documents: Mapping[str, Document], missing: Mapping[str, str]) -> str:
    """Which daemons the document covers, and which it lacks and why."""
    lines = [f"Daemons: {', '.join(sorted(documents))}."]
    lines += [f"Missing: {name}: {reason}" for name, reason in sorted(missing.items())]
    return "\n\n".join(lines)


def find_clashes(documents: Mapping[str, Document]) -> frozenset[tuple[str, str]]:
    """Components, as (section, name), that two daemons define differently.

    Two equal definitions still differ when something they refer to does, so a clash spreads
    to all that refers to it.
    """
    definitions: dict[tuple[str, str], list[Json]] = {}
    for document in documents.values():
        for section, entries in _mapping(document.get("components")).items():
            for name, entry in _mapping(entries).items():
                definitions.setdefault((section, name), []).append(entry)
    shared = {key: found for key, found in definitions.items() if len(found) > 1}
    clashing = {key for key, found in shared.items() if any(one != found[0] for one in found)}
    referred = {key: _references(found[0]) for key, found in shared.items()}
    while True:
        more = {key for key, named in referred.items() if key not in clashing and named & clashing}
        if not more:
            return frozenset(clashing)
        clashing |= more


def rename_references(node: Json, rename: Callable[[str, str], str]) -> Json:
    """A copy of `node` in which every reference to a component has its new name."""
    if isinstance(node, dict):
        fields = cast("dict[str, Json]", node)
        return {key: _rename_value(key, value, rename) for key, value in fields.items()}
    if isinstance(node, list):
        return [rename_references(item, rename) for item in cast("list[Json]", node)]
    return node


def _rename_value(key: str, value: Json, rename: Callable[[str, str], str]) -> Json:
    if key == "$ref" and isinstance(value, str):
        return _rename_pointer(value, rename)
    if key == "mapping" and isinstance(value, dict):
        # A discriminator's: names of references in the values.
        targets = cast("dict[str, Json]", value)
        return {
            name: _rename_pointer(target, rename)
            if isinstance(target, str)
            else rename_references(target, rename)
            for name, target in targets.items()
        }
    return rename_references(value, rename)


def _rename_pointer(pointer: str, rename: Callable[[str, str], str]) -> str:
    key = _component_of(pointer)
    return pointer if key is None else f"{_PREFIX}{key[0]}/{rename(*key)}"


def _component_of(pointer: str) -> tuple[str, str] | None:
    if not pointer.startswith(_PREFIX):
        return None
    section, _, name = pointer[len(_PREFIX) :].partition("/")
    return (section, name) if name else None


def _references(node: Json) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()

    def note(section: str, name: str) -> str:
        found.add((section, name))
        return name

    rename_references(node, note)
    return frozenset(found)


def _renamer(daemon: str, clashing: frozenset[tuple[str, str]]) -> Callable[[str, str], str]:
    def rename(section: str, name: str) -> str:
        return f"{daemon}.{name}" if (section, name) in clashing else name

    return rename


def _own_item(daemon: str, item: Json) -> Json:
    """A path item whose operations are tagged with their daemon and named apart by it."""
    owned = dict(_mapping(item))
    for method, operation in owned.items():
        if method not in _METHODS:
            continue
        fields = dict(_mapping(operation))
        fields["tags"] = [daemon]
        if "operationId" in fields:
            fields["operationId"] = f"{daemon}_{fields['operationId']}"
        owned[method] = fields
    return owned


def _mapping(node: Json) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", node) if isinstance(node, Mapping) else {}
