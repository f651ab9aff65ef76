"""What a corpus is: its state, when two specs are the same, what is read for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from services.matrixd.core.documents import Recipe
from services.matrixd.core.templates import Template, parse_template
from shared.errors import Conflict, Invalid
from shared.wire.matrixd import CorpusInfo, CorpusSpec, Job, Left, Tuning

# Columns of an object that is read as one text.
OBJECT_COLUMNS = ("key", "text", "size", "content_type")
# Raised when documents are made in another way, so that all are made anew.
RECIPE_VERSION = 1


class State(BaseModel):
    """All that is kept of a corpus beside its spec and its rows.

    `index_made_at` tells the index from another one of the same name; `chunked` says whether
    its items are chunks (None while there is no index); `in_hand` are documents, with the
    highest number of their items, that the index may hold and that were not noted as held;
    `built` says that the index was filled once; `calibration` is the cold ranking's own
    record.
    """

    model_config = ConfigDict(frozen=True)

    job: Job
    created_at: str
    model: str = ""
    dim: int = 0
    index_made_at: str = ""
    chunked: bool | None = None
    in_hand: dict[str, int] = {}
    built: bool = False
    documents: int = 0
    items: int = 0
    report: Left = Left()
    snapshots: dict[str, str] = {}
    calibration: dict[str, Any] | None = None
    tuning: Tuning = Tuning()
    refreshed_at: str | None = None


def describe(spec: CorpusSpec, uid: str, state: State) -> CorpusInfo:
    """A corpus as it is answered."""
    failed = not state.built and state.job.status == "failed"
    return CorpusInfo(
        **spec.model_dump(exclude={"model", "source", "chunking"}),
        source=spec.source,
        chunking=spec.chunking,
        status="ready" if state.built else "failed" if failed else "building",
        model=state.model,
        dim=state.dim,
        index=index_name(spec.name, uid),
        documents=state.documents,
        items=state.items,
        report=state.report,
        job=state.job,
        calibrated=state.calibration is not None,
        tuning=state.tuning,
        snapshots=state.snapshots,
        created_at=state.created_at,
        refreshed_at=state.refreshed_at,
    )


def combine(tuned: Tuning, asked: Tuning | None) -> Tuning:
    """How a corpus is searched where a search asks for something of its own."""
    if asked is None:
        return tuned
    return tuned.model_copy(update=asked.model_dump(exclude_none=True))


def index_name(corpus: str, uid: str) -> str:
    """The index of a corpus; one made anew under an old name gets another."""
    return f"corpus-{corpus}-{uid}"


def find_differences(existing: CorpusSpec, asked: CorpusSpec) -> dict[str, dict[str, Any]]:
    """What differs between two specs of one name, by field."""
    old, new = existing.model_dump(mode="json"), asked.model_dump(mode="json")
    return {f: {"existing": old[f], "asked": new[f]} for f in old if old[f] != new[f]}


def check_same(existing: CorpusSpec, asked: CorpusSpec) -> None:
    """Passes when asking for a corpus again means the one that exists.

    Raises:
        Conflict: it does not; details name each difference.
    """
    differences = find_differences(existing, asked)
    if differences:
        raise Conflict(
            f"Corpus {asked.name!r} exists with another {', '.join(differences)}. Use it as it is, "
            "choose another name, or send it with ?replace=true to change it.",
            details={"differences": differences},
        )


def make_recipe(spec: CorpusSpec) -> Recipe:
    """How the rows of a source become documents.

    Raises:
        Invalid: a template cannot be read.
    """
    chunking = spec.chunking.model_dump() if spec.chunking else None
    return Recipe(
        parse_template(spec.id, "id"),
        parse_template(spec.text, "text"),
        spec.metadata,
        json.dumps([RECIPE_VERSION, chunking]),
    )


def wanted_columns(spec: CorpusSpec, recipe: Recipe) -> dict[str, Sequence[str]]:
    """The columns a spec names, by field."""
    return {
        "id": recipe.id.columns,
        "text": recipe.text.columns,
        "metadata": list(dict.fromkeys(spec.metadata)),
    }


def check_spec(spec: CorpusSpec) -> None:
    """Passes when a spec makes sense before its source is looked at.

    Raises:
        Invalid: what is wrong with it.
    """
    make_recipe(spec)
    if spec.source.objects is not None and spec.refresh == "on_ingest":
        raise Invalid(
            "refresh on_ingest follows datasets; objects have none. "
            "Use refresh manual and POST …/refresh."
        )
    if spec.source.objects is None and "id" not in spec.model_fields_set:
        raise Invalid("id: say which column tells the rows apart.")


def read_statement(spec: CorpusSpec, columns: Iterable[str] = ()) -> str:
    """The SELECT behind a corpus; its first row-less form tells the columns.

    Args:
        columns: those to be read; none at all asks for the columns themselves.
    """
    chosen = ", ".join(quote(name) for name in dict.fromkeys(columns))
    if spec.source.dataset is not None:
        source = quote(spec.source.dataset)
    else:
        # The newline ends a comment at the statement's end.
        source = f"({(spec.source.sql or '').strip().rstrip(';')}\n) AS source"
    return f"SELECT {chosen or '*'} FROM {source}" + ("" if chosen else " LIMIT 0")


def quote(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def read_datasets(spec: CorpusSpec, known: Iterable[str]) -> list[str]:
    """Those of the known datasets that a corpus reads: its own, or any that its SQL names."""
    if spec.source.dataset is not None:
        return [name for name in known if name == spec.source.dataset.lower()]
    words = set(re.findall(r"[a-z_][a-z0-9_]*", (spec.source.sql or "").lower()))
    return sorted(words & set(known))


def all_columns(recipe: Recipe) -> list[str]:
    """Every column that a recipe reads, once."""
    templates: tuple[Template, ...] = (recipe.id, recipe.text)
    named = [name for template in templates for name in template.columns]
    return list(dict.fromkeys([*named, *recipe.metadata]))
