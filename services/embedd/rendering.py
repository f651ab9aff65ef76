"""Answers of embedd in JSON, base64 and Arrow.

numpy carries the numbers to orjson, which writes the shortest text that reads back as the
same float32. It is imported with the first answer. Large answers are made in pieces, so that
other requests get their turn in between.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import orjson
from fastapi.responses import Response, StreamingResponse

from services.embedd.core.lru import Entry
from services.embedd.store.embeddings import Embedded
from shared.wire.embedd import ARROW_STREAM

# Vectors written in one go; each takes about ten microseconds.
PIECE = 128
JSON = "application/json"


def answer_json(embedded: Embedded) -> Response:
    """`EmbedResponse` as JSON."""
    head = orjson.dumps(
        {
            "model": embedded.model,
            "dim": embedded.dim,
            "tokens": embedded.tokens,
            "truncated": embedded.truncated,
        }
    )
    pieces = _number_pieces(embedded.entries, embedded.dim)
    return _send(head[:-1] + b',"vectors":[', pieces, b"]}", len(embedded.entries))


def answer_openai(embedded: Embedded, encoding: str) -> Response:
    """`OpenAIEmbedResponse` as JSON."""
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    tail = orjson.dumps({"model": embedded.model, "usage": usage})
    pieces = _openai_pieces(embedded.entries, embedded.dim, encoding)
    return _send(b'{"object":"list","data":[', pieces, b"]," + tail[1:], len(embedded.entries))


def answer_arrow(embedded: Embedded) -> Response:
    """An Arrow IPC stream of one column `vector`: a fixed-size list of float32.

    Model, dim, tokens and truncated stand in the schema's metadata, as JSON values.
    """
    from services.embedd.store.arrow import write_end, write_rows, write_schema

    metadata = {
        "model": embedded.model,
        "dim": str(embedded.dim),
        "tokens": str(embedded.tokens),
        "truncated": orjson.dumps(embedded.truncated).decode(),
    }
    vectors = b"".join(entry.vector for entry in embedded.entries)
    body = (
        write_schema(embedded.dim, metadata)
        + write_rows(vectors, len(embedded.entries), embedded.dim)
        + write_end()
    )
    return Response(body, media_type=ARROW_STREAM)


def _number_pieces(entries: Sequence[Entry], dim: int) -> Iterator[bytes]:
    for start in range(0, len(entries), PIECE):
        rows = _as_rows(entries[start : start + PIECE], dim)
        yield orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _openai_pieces(entries: Sequence[Entry], dim: int, encoding: str) -> Iterator[bytes]:
    for start in range(0, len(entries), PIECE):
        some = entries[start : start + PIECE]
        values: Any = (
            [base64.b64encode(entry.vector).decode() for entry in some]
            if encoding == "base64"
            else _as_rows(some, dim)
        )
        items = [
            {"object": "embedding", "index": index, "embedding": value}
            for index, value in enumerate(values, start)
        ]
        yield orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _as_rows(entries: Sequence[Entry], dim: int) -> Any:
    import numpy as np

    joined = b"".join(entry.vector for entry in entries)
    return np.frombuffer(joined, "<f4").astype(np.float32, copy=False).reshape(-1, dim)


def _send(head: bytes, pieces: Iterator[bytes], tail: bytes, count: int) -> Response:
    if count <= PIECE:
        return Response(head + b",".join(pieces) + tail, media_type=JSON)

    async def stream() -> AsyncGenerator[bytes]:
        yield head
        for number, piece in enumerate(pieces):
            yield b"," + piece if number else piece
            # Sending need not wait, so without this it would be one long piece of work.
            await asyncio.sleep(0)
        yield tail

    return StreamingResponse(stream(), media_type=JSON)
