"""References to what other nodes gave: `$a.output.hits[0].id`, `$inputs.city`, `$a.state`.

Alone in a string a reference keeps its type; inside a longer one it becomes text. `$$` is a
dollar sign, and a dollar before anything that is no name stays what it is. An object
`{from: "$a.output.x", if_skipped: 0}` gives its default when `a` was skipped - not when `a`
failed: what a failed node left behind is never read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from services.observerd.core.workflow.states import Result, Unresolved

INPUTS = "inputs"
_DEFAULTED = {"from", "if_skipped"}
_NAME = r"[A-Za-z_][A-Za-z0-9_\-]*"
_STEP = r"(?:\.[A-Za-z0-9_][A-Za-z0-9_\-]*|\[\d{1,9}\])"
# Three forms: an escaped dollar, a reference in braces, a plain one.
_TOKEN = re.compile(rf"\$(?:(\$)|\{{({_NAME})((?:{_STEP})*)\}}|({_NAME})((?:{_STEP})*))")
_PART = re.compile(r"\.([A-Za-z0-9_\-]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Reference:
    """`node` is a node's id or `inputs`; `path` are keys and positions behind it."""

    node: str
    path: tuple[str | int, ...]
    text: str

    def check(self) -> str | None:
        """What is wrong with its form, if anything is."""
        if self.node == INPUTS:
            return None if self.path else "say which input: $inputs.name"
        if not self.path or self.path[0] not in ("output", "state"):
            return f"{self.text} must go on with .output or .state"
        if self.path[0] == "state" and len(self.path) > 1:
            return f"{self.text}: a state has no parts"
        return None


@dataclass(frozen=True, slots=True)
class Scope:
    """What references may see: the run's inputs, and how nodes ended."""

    inputs: Mapping[str, Any]
    results: Mapping[str, Result]


def parse_reference(text: str) -> Reference | None:
    """The reference that a whole text is, or None when it is anything else."""
    match = _TOKEN.fullmatch(text.strip())
    return None if match is None or match[1] else _make(match)


def find_references(value: Any, names: frozenset[str]) -> Iterator[Reference]:
    """Every reference in a JSON value, in order. `names` are the ids of all nodes."""
    if isinstance(value, str):
        for match in _TOKEN.finditer(value):
            if not match[1]:
                found = _make(match)
                if _is_meant(found, names, braced=bool(match[2])):
                    yield found
    elif isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            yield from find_references(inner, names)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from find_references(inner, names)


def is_defaulted(value: Any) -> bool:
    """Whether a value is a reference with a default for a skipped node."""
    return isinstance(value, dict) and set(cast("dict[str, Any]", value)) == _DEFAULTED


def resolve_value(value: Any, scope: Scope, names: frozenset[str]) -> Any:
    """A JSON value with its references replaced by what they stand for.

    Raises:
        Unresolved: one of them has no value in this run.
    """
    if isinstance(value, str):
        return _resolve_text(value, scope, names)
    if isinstance(value, list):
        return [resolve_value(inner, scope, names) for inner in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    if is_defaulted(fields):
        reference = parse_reference(str(fields["from"]))
        if reference is not None:
            result = scope.results.get(reference.node)
            if result is not None and result.state == "skipped":
                return fields["if_skipped"]
            return resolve(reference, scope)
    return {key: resolve_value(inner, scope, names) for key, inner in fields.items()}


def resolve(reference: Reference, scope: Scope) -> Any:
    """What a reference stands for.

    Raises:
        Unresolved: its node gave no output, or the output has no such part.
    """
    path = reference.path
    if reference.node == INPUTS:
        value: Any = scope.inputs
    else:
        result = scope.results.get(reference.node)
        if result is None:
            raise Unresolved(f"{reference.text}: {reference.node} has not ended")
        if path[0] == "state":
            return result.state
        if result.state != "completed":
            hint = ""
            if result.state == "skipped":
                hint = "; {from, if_skipped} gives a default"
            raise Unresolved(f"{reference.text}: {reference.node} is {result.state}{hint}")
        value, path = result.output, path[1:]
    for at, part in enumerate(path):
        try:
            value = _step(value, part)
        except (KeyError, IndexError, TypeError):
            raise Unresolved(f"{reference.text}: there is no {_show(path[: at + 1])}") from None
    return value


def _step(value: Any, part: str | int) -> Any:
    if isinstance(value, list):
        # Both `hits[0]` and `hits.0` are read as a position.
        return cast("list[Any]", value)[int(part) if str(part).isdigit() else -(10**9)]
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)[str(part)]
    raise TypeError


def _resolve_text(text: str, scope: Scope, names: frozenset[str]) -> Any:
    whole = _TOKEN.fullmatch(text)
    if whole is not None and not whole[1]:
        reference = _make(whole)
        if _is_meant(reference, names, braced=bool(whole[2])):
            return resolve(reference, scope)
        return text

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        reference = _make(match)
        if not _is_meant(reference, names, braced=bool(match[2])):
            return match[0]
        value = resolve(reference, scope)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _TOKEN.sub(replace, text)


def _is_meant(reference: Reference, names: frozenset[str], *, braced: bool) -> bool:
    """Whether it is a reference rather than a text about dollars: `$USD` alone is none."""
    return braced or bool(reference.path) or reference.node in names or reference.node == INPUTS


def _make(match: re.Match[str]) -> Reference:
    node, tail = (match[2], match[3]) if match[2] else (match[4], match[5])
    path = tuple(
        int(found[2]) if found[2] is not None else found[1] for found in _PART.finditer(tail)
    )
    return Reference(node, path, match[0])


def _show(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
