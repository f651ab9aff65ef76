"""The search behind a run: what was asked, what came, and which of it a name means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

Ref = tuple[str, str]
# Reports of matrixd that carry the whole request; of a run's several the first mode counts.
SEARCH_MODES = ("matrix.search", "matrix.compose")


@dataclass(frozen=True, slots=True)
class Search:
    """One search: `corpora` is None where all were meant; `shown` is in the order it came."""

    query: str
    corpora: tuple[str, ...] | None
    shown: tuple[Ref, ...]
    filtered: bool = False


def name_ref(ref: Ref) -> str:
    """A document's name in lineage and evidence."""
    return f"{ref[0]}/{ref[1]}"


def match_refs(names: Iterable[str], shown: Sequence[Ref]) -> tuple[Ref, ...]:
    """The shown documents that names mean, in the order shown.

    A name is `corpus/id`, or an id alone where only one of the documents has it: an id that
    two corpora share means neither.
    """
    by_id: dict[str, list[Ref]] = {}
    for ref in dict.fromkeys(shown):
        by_id.setdefault(ref[1], []).append(ref)
    wanted = frozenset(names)
    return tuple(
        ref
        for ref in dict.fromkeys(shown)
        if name_ref(ref) in wanted or (ref[1] in wanted and len(by_id[ref[1]]) == 1)
    )


def read_search(event: Mapping[str, Any], modes: Sequence[str] = SEARCH_MODES) -> Search | None:
    """The search that an event of matrixd tells of; None when it does not, or failed."""
    if event.get("mode") not in modes or event.get("status") != "ok":
        return None
    inputs, outputs = event.get("inputs"), event.get("outputs")
    if not isinstance(inputs, dict) or not isinstance(outputs, list):
        return None
    asked = cast("dict[str, Any]", inputs)
    query, corpora = asked.get("query"), asked.get("corpora")
    shown = [
        (pair[0], pair[1])
        for pair in cast("list[Any]", outputs)
        if isinstance(pair, list)
        and len(cast("list[Any]", pair)) == 2
        and all(isinstance(part, str) for part in cast("list[Any]", pair))
    ]
    if not isinstance(query, str) or not query.strip() or not shown:
        return None
    named = cast("list[Any]", corpora) if isinstance(corpora, list) else None
    return Search(
        query,
        None if named is None else tuple(str(name) for name in named),
        tuple(shown),
        filtered=asked.get("filters") is not None,
    )


def find_search(
    events: Iterable[Mapping[str, Any]], modes: Sequence[str] = SEARCH_MODES
) -> Search | None:
    """The latest search among a run's events (oldest first), of the first mode that has one."""
    found: dict[str, Search] = {}
    for event in events:
        search = read_search(event, modes)
        if search is not None:
            found[str(event["mode"])] = search
    return next((found[mode] for mode in modes if mode in found), None)
