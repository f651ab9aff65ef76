"""What was found, as the caller asked for it: JSON hits, or Arrow rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from services.vectord.store.index import View
from services.vectord.store.search import Found, Ranked

Include = Sequence[str]


def render_found(view: View, found: Found, include: Include) -> dict[str, Any]:
    """One answer as JSON-ready data, metadata passed on as it is stored."""
    answer: dict[str, Any] = {"hits": _render(view, found.hits, include)}
    for name, ranked in (("dense", found.dense), ("lexical", found.lexical)):
        if name in include and ranked is not None:
            answer[name] = _render(view, ranked, include)
    return answer


def _render(view: View, ranked: Ranked, include: Include) -> list[dict[str, Any]]:
    table = view.table
    hits: list[dict[str, Any]] = []
    for rank, (row, score) in enumerate(ranked, start=1):
        hit: dict[str, Any] = {"id": table.ids[row], "score": score, "rank": rank}
        if "text" in include:
            hit["text"] = table.texts[row]
        if "metadata" in include:
            hit["metadata"] = orjson.Fragment(table.metadata[row])
        if "vector" in include:
            hit["vector"] = view.matrix[row].tolist()
        hits.append(hit)
    return hits


def encode_json(answer: object) -> bytes:
    """JSON bytes of a rendered answer."""
    return orjson.dumps(answer)


def encode_arrow(view: View, found: Sequence[Found], include: Include) -> bytes:
    """All hits as one Arrow stream, a row each: query, rank, id, score, and what is included."""
    table = view.table
    pairs = [pair for one in found for pair in one.hits]
    rows = [row for row, _ in pairs]
    columns: dict[str, Any] = {
        "query": pa.array([n for n, one in enumerate(found) for _ in one.hits], pa.int32()),
        "rank": pa.array([r for one in found for r in range(1, len(one.hits) + 1)], pa.int32()),
        "id": pa.array([table.ids[row] for row in rows], pa.string()),
        "score": pa.array([score for _, score in pairs], pa.float64()),
    }
    if "text" in include:
        columns["text"] = pa.array([table.texts[row] for row in rows], pa.string())
    if "metadata" in include:
        columns["metadata"] = pa.array([table.metadata[row].decode() for row in rows], pa.string())
    if "vector" in include:
        flat = pa.array(view.matrix[rows].reshape(-1))
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, view.table.dim)
    made = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue().to_pybytes()


def render_item(view: View, row: int) -> bytes:
    """One item as JSON."""
    table = view.table
    return orjson.dumps(
        {
            "id": table.ids[row],
            "vector": view.matrix[row].tolist(),
            "text": table.texts[row],
            "metadata": orjson.Fragment(table.metadata[row]),
        }
    )
