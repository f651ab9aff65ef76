"""Where the rows of corpora come from: queryd for datasets and SQL, storaged for objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import orjson

from services.matrixd.core.corpora import (
    OBJECT_COLUMNS,
    all_columns,
    read_datasets,
    read_statement,
    wanted_columns,
)
from services.matrixd.core.documents import Recipe
from services.matrixd.core.templates import check_columns
from services.matrixd.store.peers import Peers
from shared.errors import Invalid, NotFound
from shared.wire.matrixd import CorpusSpec
from shared.wire.queryd import SqlRequest
from shared.wire.storaged import ObjectInfo

# An object that is one text; a larger one is told and left out.
MAX_OBJECT_BYTES = 8 << 20
# A JSON-lines object is read in pieces, so its size does not matter; one line's does.
MAX_LINE_BYTES = 4 << 20


class Unusable(Exception):
    """A row that cannot be read; the reading goes on."""


class Sources:
    """Checks and reads the source of a corpus."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def check(self, spec: CorpusSpec, recipe: Recipe) -> None:
        """Passes when the source is there and has every column that the spec names.

        Raises:
            Invalid, NotFound, Forbidden: what is wrong with it.
        """
        if spec.source.objects is None:
            result = await self._peers.queryd.run_query(SqlRequest(sql=read_statement(spec)))
            known = [column.name for column in result.columns]
            check_columns(wanted_columns(spec, recipe), known)
            return
        found = [info async for info in self._list_objects(spec, 1)]
        if not found:
            raise NotFound(f"Storage has no object under {spec.source.objects!r}.")
        if not is_lines(spec, found[0].key):
            check_columns(wanted_columns(spec, recipe), OBJECT_COLUMNS)

    async def read_snapshots(self, spec: CorpusSpec) -> dict[str, str]:
        """The current snapshot of each dataset that the corpus reads."""
        if spec.source.objects is not None:
            return {}
        datasets = {d.name: d.snapshot_id or "" for d in await self._peers.catalogd.list_datasets()}
        return {name: datasets[name] for name in read_datasets(spec, datasets)}

    async def read(
        self, spec: CorpusSpec, recipe: Recipe
    ) -> AsyncGenerator[dict[str, Any] | Unusable]:
        """The rows, one by one, in the source's order."""
        if spec.source.objects is not None:
            async for row in self._read_objects(spec):
                yield row
            return
        statement = read_statement(spec, all_columns(recipe))
        async with self._peers.queryd.stream_rows(SqlRequest(sql=statement)) as rows:
            async for row in rows:
                yield row

    async def _list_objects(self, spec: CorpusSpec, limit: int = 0) -> AsyncGenerator[ObjectInfo]:
        wanted = spec.source.objects
        if isinstance(wanted, list):
            for key in wanted[: limit or None]:
                yield await self._peers.storaged.head_object(key)
            return
        count = 0
        async for info in self._peers.storaged.walk_objects(wanted or ""):
            yield info
            count += 1
            if count == limit:
                return

    async def _read_objects(self, spec: CorpusSpec) -> AsyncGenerator[dict[str, Any] | Unusable]:
        async for info in self._list_objects(spec):
            if is_lines(spec, info.key):
                async for row in self._read_lines(info.key):
                    yield row
            elif info.size > MAX_OBJECT_BYTES:
                yield Unusable(
                    f"{info.key}: {info.size} bytes; at most {MAX_OBJECT_BYTES} are read"
                )
            else:
                async with self._peers.storaged.get_object(info.key) as body:
                    content = await body.read()
                try:
                    text = content.decode("utf-8-sig")
                except UnicodeDecodeError:
                    yield Unusable(f"{info.key}: is not UTF-8 text")
                    continue
                values = (info.key, text, info.size, info.content_type)
                yield dict(zip(OBJECT_COLUMNS, values, strict=True))

    async def _read_lines(self, key: str) -> AsyncGenerator[dict[str, Any] | Unusable]:
        rest, number = b"", 0
        async with self._peers.storaged.get_object(key) as body:
            async for piece in body:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    number += 1
                    if line.strip():
                        yield read_line(line, f"{key}:{number}")
                if len(rest) > MAX_LINE_BYTES:
                    raise Invalid(
                        f"{key}: line {number + 1} is longer than {MAX_LINE_BYTES} bytes."
                    )
        if rest.strip():
            yield read_line(rest, f"{key}:{number + 1}")


def is_lines(spec: CorpusSpec, key: str) -> bool:
    """Whether an object holds a row a line."""
    wanted = spec.source.format
    return wanted == "jsonl" or (wanted == "auto" and key.endswith((".jsonl", ".ndjson")))


def read_line(line: bytes, where: str) -> dict[str, Any] | Unusable:
    """The row of a JSON line, or why there is none."""
    try:
        row = orjson.loads(line)
    except ValueError:
        return Unusable(f"{where}: is not JSON")
    return row if isinstance(row, dict) else Unusable(f"{where}: is not a JSON object")
