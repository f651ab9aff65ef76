"""Items and queries as they come in: parsed, checked whole, and laid out for the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from services.vectord.core.records import Upsert
from services.vectord.core.spec import check_dim, check_k, check_model
from services.vectord.store.search import Ask
from services.vectord.store.table import Matrix
from shared.config import VectordSection
from shared.errors import Invalid, TooLarge
from shared.filters.language import Filter, parse_filter
from shared.wire.vectord import IndexSpec, PutItems, Query, SearchRequest

M = TypeVar("M", bound=BaseModel)


def read_model(model: type[M], body: bytes) -> M:
    """A request body as its wire model.

    Raises:
        Invalid: it is no such request; details list the first problems.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = [
            {"where": ".".join(map(str, found["loc"])) or "body", "problem": found["msg"]}
            for found in error.errors(include_url=False, include_input=False)[:20]
        ]
        first = problems[0]
        raise Invalid(
            f"The request is not valid: {first['where']}: {first['problem']}",
            details={"problems": problems},
        ) from None


def read_items(spec: IndexSpec, limits: VectordSection, body: bytes) -> tuple[Upsert, int]:
    """The upsert that a JSON body asks for, and how many items a later one overrode."""
    request = read_model(PutItems, body)
    check_model(spec, request.model)
    _check_count(len(request.items), limits)
    for number, item in enumerate(request.items):
        check_dim(spec, len(item.vector), f"items[{number}] ({item.id!r})")
    vectors = _to_matrix([item.vector for item in request.items], spec.dim)
    return _lay_out(
        spec,
        limits,
        [item.id for item in request.items],
        vectors,
        [item.text for item in request.items],
        [_dump(item.metadata, item.id) for item in request.items],
    )


def read_arrow_items(
    spec: IndexSpec, limits: VectordSection, body: bytes, model: str | None
) -> tuple[Upsert, int]:
    """The upsert in an Arrow stream with columns id, vector, and maybe text and metadata.

    `metadata` holds a JSON object as a string, or is a struct.
    """
    check_model(spec, model)
    table = read_table(body, ("id", "vector"), ("text", "metadata"))
    _check_count(table.num_rows, limits)
    vectors = read_vectors(spec, table["vector"])
    ids = _strings(table, "id")
    bad = next((n for n, name in enumerate(ids) if not name or len(name) > 512), None)
    if bad is not None:
        raise Invalid(f"Row {bad}: an id is a string of 1 to 512 characters.")
    texts = _strings(table, "text") if "text" in table.column_names else [None] * len(ids)
    metadata = [b"{}"] * len(ids)
    if "metadata" in table.column_names:
        found: list[Any] = table["metadata"].to_pylist()
        metadata = [_read_metadata(value, name) for value, name in zip(found, ids, strict=True)]  # pyright: ignore[reportArgumentType]
    return _lay_out(spec, limits, ids, vectors, texts, metadata)  # pyright: ignore[reportArgumentType]


def _lay_out(
    spec: IndexSpec,
    limits: VectordSection,
    ids: list[str],
    vectors: Matrix,
    texts: Sequence[str | None],
    metadata: list[bytes],
) -> tuple[Upsert, int]:
    check_vectors(spec, vectors, [f"item {name!r}" for name in ids])
    for name, text, found in zip(ids, texts, metadata, strict=True):
        _check_text(name, text, limits)
        if len(found) > limits.max_metadata_bytes:
            raise TooLarge(
                f"Item {name!r}: metadata takes {len(found)} bytes as JSON; "
                f"{limits.max_metadata_bytes} are allowed. Keep large values elsewhere.",
                details={"id": name, "limit_bytes": limits.max_metadata_bytes},
            )
    last = {name: number for number, name in enumerate(ids)}
    if len(last) < len(ids):
        # Written in the order in which the winning versions came.
        keep = sorted(last.values())
        duplicates = len(ids) - len(keep)
        picked = [ids[n] for n in keep], [texts[n] for n in keep], [metadata[n] for n in keep]
        return Upsert(picked[0], vectors[keep].tobytes(), picked[1], picked[2]), duplicates
    return Upsert(ids, vectors.tobytes(), texts, metadata), 0


def _check_text(name: str, text: str | None, limits: VectordSection) -> None:
    if text is not None and len(text) > limits.max_text_bytes // 4:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > limits.max_text_bytes:
            raise TooLarge(
                f"Item {name!r}: its text takes {size} bytes; {limits.max_text_bytes} are "
                "allowed. Cut it into chunks with an id each.",
                details={"id": name, "limit_bytes": limits.max_text_bytes},
            )


def _check_count(count: int, limits: VectordSection) -> None:
    if count > limits.max_items:
        raise TooLarge(
            f"{count} items at once; at most {limits.max_items}. Send them in several requests.",
            details={"limit": limits.max_items},
        )


def _to_matrix(vectors: list[list[float]], dim: int) -> Matrix:
    with np.errstate(over="ignore"):
        return np.array(vectors, np.float64).reshape(len(vectors), dim).astype(np.float32)


def check_vectors(spec: IndexSpec, vectors: Matrix, names: Sequence[str]) -> None:
    """Passes when every vector can be searched.

    Raises:
        Invalid: one has a NaN or infinite number, or no direction under cosine.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise Invalid(
            f"{names[bad[0]]}: the vector holds a number that is NaN or infinite as float32.",
            details={"rows": bad[:20].tolist()},
        )
    if spec.metric == "cosine":
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        # hnswlib squares in float32, where what is this small becomes nothing.
        bad = np.flatnonzero((norms < 1e-18) | (norms > 1e18))
        if len(bad):
            raise Invalid(
                f"{names[bad[0]]}: a zero vector has no direction under cosine (nor one whose "
                "length float32 cannot hold). Leave it out, or use another metric.",
                details={"rows": bad[:20].tolist()},
            )


def read_table(body: bytes, required: Sequence[str], optional: Sequence[str]) -> pa.Table:
    """An Arrow stream with the columns it must have.

    Raises:
        Invalid: it is no such stream.
    """
    try:
        table = pa.ipc.open_stream(body).read_all()
        table.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowException, OSError, ValueError) as error:
        raise Invalid(f"The body is no Arrow IPC stream: {str(error)[:200]}") from None
    missing = [name for name in required if name not in table.column_names]
    unknown = [name for name in table.column_names if name not in (*required, *optional)]
    if missing or unknown:
        raise Invalid(
            f"The Arrow columns must be {', '.join(required)} and may be {', '.join(optional)}; "
            f"missing: {missing}, unknown: {unknown}."
        )
    return table


def read_vectors(spec: IndexSpec, column: Any) -> Matrix:
    """A column of vectors (fixed-size lists, or lists, of floats) as float32.

    Raises:
        Invalid: it is of another type or dimension, or has nulls.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    lists = (
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )
    if not lists or not pa.types.is_floating(kind.value_type):
        raise Invalid(f"The vector column must hold lists of floats; it holds {kind}.")
    values = array.flatten()
    if array.null_count or values.null_count:
        raise Invalid("The vector column holds nulls; every item needs a whole vector.")
    if pa.types.is_fixed_size_list(kind):
        if len(array):
            check_dim(spec, kind.list_size, "The vector column")
    else:
        lengths = np.diff(np.asarray(array.offsets))
        bad = np.flatnonzero(lengths != spec.dim)
        if len(bad):
            check_dim(spec, int(lengths[bad[0]]), f"Row {bad[0]}")
    with np.errstate(over="ignore"):
        flat = np.asarray(values).astype(np.float32, copy=False)
    return flat.reshape(len(array), spec.dim)


def _strings(table: pa.Table, name: str) -> list[Any]:
    kind = table[name].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise Invalid(f"The column {name} must hold strings; it holds {kind}.")
    return table[name].to_pylist()


def _read_metadata(value: object, name: str) -> bytes:
    if value is None:
        return b"{}"
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            raise Invalid(f"Item {name!r}: its metadata is no JSON.") from None
    if not isinstance(value, dict):
        raise Invalid(f"Item {name!r}: its metadata must be a JSON object.")
    return _dump(value, name)  # pyright: ignore[reportUnknownArgumentType]


def _dump(metadata: dict[str, Any], name: str) -> bytes:
    try:
        return orjson.dumps(metadata)
    except TypeError as error:
        raise Invalid(f"Item {name!r}: its metadata cannot be kept: {error}.") from None


def to_asks(spec: IndexSpec, limits: VectordSection, request: SearchRequest) -> list[Ask]:
    """The queries of a request, checked."""
    check_model(spec, request.model)
    if request.queries is None:
        return [_to_ask(spec, limits, request, "The query")]
    if request.vector is not None or request.text is not None:
        raise Invalid("Give either one query or a list in queries, not both.")
    check_batch(len(request.queries), limits)
    return [_to_ask(spec, limits, q, f"queries[{n}]") for n, q in enumerate(request.queries)]


def check_batch(count: int, limits: VectordSection) -> None:
    """Passes when a batch is neither empty nor too large.

    Raises:
        Invalid: it is.
    """
    if not 1 <= count <= limits.max_queries:
        raise Invalid(f"A batch holds 1 to {limits.max_queries} queries; {count} were sent.")


def _to_ask(spec: IndexSpec, limits: VectordSection, query: Query, where: str) -> Ask:
    if query.vector is None and not (query.text or "").strip():
        raise Invalid(f"{where} needs a vector, a text that is not empty, or both.")
    vector = None
    if query.vector is not None:
        check_dim(spec, len(query.vector), where)
        matrix = _to_matrix([query.vector], spec.dim)
        check_vectors(spec, matrix, [where])
        vector = matrix[0]
    return make_ask(limits, vector, query.text, query.k, query.ef, read_filter(query.filter))


def read_filter(given: object) -> Filter | None:
    """The filter of a request, if it has one."""
    return None if given is None else parse_filter(given)


def make_ask(
    limits: VectordSection,
    vector: Matrix | None,
    text: str | None,
    k: int,
    ef: int | None,
    given: Filter | None,
) -> Ask:
    """One query with the defaults filled in; its vector is checked already."""
    check_k(k, limits.max_k)
    _check_text("query", text, limits)
    return Ask(vector, text, k, max(k, ef or limits.ef_search), given)


def read_arrow_asks(
    spec: IndexSpec,
    limits: VectordSection,
    body: bytes,
    *,
    k: int,
    ef: int | None,
    filter_json: str | None,
    model: str | None,
) -> list[Ask]:
    """A batch of queries in an Arrow stream with columns vector, text, or both."""
    check_model(spec, model)
    table = read_table(body, (), ("vector", "text"))
    check_batch(table.num_rows, limits)
    given = None
    if filter_json is not None:
        try:
            given = parse_filter(orjson.loads(filter_json))
        except ValueError:
            raise Invalid("filter: expected a JSON object.") from None
    vectors: Sequence[Any] = [None] * table.num_rows
    if "vector" in table.column_names:
        vectors = read_vectors(spec, table["vector"])
        check_vectors(spec, vectors, [f"Row {n}" for n in range(table.num_rows)])  # pyright: ignore[reportArgumentType]
    texts = _strings(table, "text") if "text" in table.column_names else [None] * table.num_rows
    if not table.column_names:
        raise Invalid("The Arrow stream needs a column vector or text.")
    return [
        make_ask(limits, vector, text, k, ef, given)
        for vector, text in zip(vectors, texts, strict=True)
    ]
