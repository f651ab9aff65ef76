"""Where the rows of corpora come from: queryd for datasets and SQL, storaged for objects."""

from __future__ import annotations

from codecs import BOM_UTF8
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
from shared.errors import Invalid, NotFound, Timeout, Unprocessable, Upstream
from shared.wire.matrixd import CorpusSpec
from shared.wire.queryd import SqlRequest
from shared.wire.storaged import ObjectInfo

# An object that is one text; a larger one is told and left out.
MAX_OBJECT_BYTES = 8 << 20
# A JSON-lines object is read in pieces, so its size does not matter; one line's does.
MAX_LINE_BYTES = 4 << 20
_HASTE = (
    "All of it must be read within queryd's query_timeout_s: make the query cheaper or narrower, "
    "ingest its result as a dataset, or raise that setting; then refresh the corpus."
)


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
        request = SqlRequest(sql=read_statement(spec, all_columns(recipe)))
        count = 0
        try:
            async with self._peers.queryd.stream_rows(request) as rows:
                async for row in rows:
                    count += 1
                    yield row
        except Timeout:
            # It would take as long again.
            raise Unprocessable(f"The source gave no rows in time. {_HASTE}") from None
        except Upstream:
            told = f"The source broke off after {count} rows; queryd's log has the reason."
            raise Upstream(f"{told} {_HASTE}") from None

    async def _list_objects(self, spec: CorpusSpec, limit: int = 0) -> AsyncGenerator[ObjectInfo]:
        wanted = spec.source.objects
        if isinstance(wanted, list):
            for key in wanted[: limit or None]:
                try:
                    info = await self._peers.storaged.head_object(key)
                except NotFound:
                    raise _no_object(key) from None
                except Invalid:
                    raise Invalid(f"objects: no object can have the key {key!r}.") from None
                yield info
            return
        count = 0
        async for info in self._peers.storaged.walk_objects(wanted or ""):
            yield info
            count += 1
            if count == limit:
                return

    async def _read_objects(self, spec: CorpusSpec) -> AsyncGenerator[dict[str, Any] | Unusable]:
        async for info in self._list_objects(spec):
            try:
                async for row in self._read_object(spec, info):
                    yield row
            except NotFound:
                # Deleted since it was listed: a prefix has it no more, a list of keys asks for it.
                if isinstance(spec.source.objects, list):
                    raise _no_object(info.key) from None

    async def _read_object(
        self, spec: CorpusSpec, info: ObjectInfo
    ) -> AsyncGenerator[dict[str, Any] | Unusable]:
        if is_lines(spec, info.key):
            async for row in self._read_lines(info.key):
                yield row
            return
        if info.size > MAX_OBJECT_BYTES:
            yield Unusable(f"{info.key}: {info.size} bytes; at most {MAX_OBJECT_BYTES} are read")
            return
        async with self._peers.storaged.get_object(info.key) as body:
            content = await body.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            yield Unusable(f"{info.key}: is not UTF-8 text")
            return
        values = (info.key, text, info.size, info.content_type)
        yield dict(zip(OBJECT_COLUMNS, values, strict=True))

    async def _read_lines(self, key: str) -> AsyncGenerator[dict[str, Any] | Unusable]:
        rest, number, long = b"", 0, False
        async with self._peers.storaged.get_object(key) as body:
            async for piece in body:
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    number += 1
                    if long or len(line) > MAX_LINE_BYTES:
                        yield _too_long(key, number)
                    elif line.strip():
                        yield read_line(line, key, number)
                    long = False
                if len(rest) > MAX_LINE_BYTES:
                    # What follows up to the line's end goes the same way.
                    rest, long = b"", True
        if long:
            yield _too_long(key, number + 1)
        elif rest.strip():
            yield read_line(rest, key, number + 1)


def is_lines(spec: CorpusSpec, key: str) -> bool:
    """Whether an object holds a row a line."""
    wanted = spec.source.format
    return wanted == "jsonl" or (wanted == "auto" and key.endswith((".jsonl", ".ndjson")))


def read_line(line: bytes, key: str, number: int) -> dict[str, Any] | Unusable:
    """The row of a JSON line, or why there is none."""
    try:
        row = orjson.loads(line.removeprefix(BOM_UTF8) if number == 1 else line)
    except ValueError:
        return Unusable(f"{key}:{number}: is not JSON")
    return row if isinstance(row, dict) else Unusable(f"{key}:{number}: is not a JSON object")


def _no_object(key: str) -> NotFound:
    return NotFound(
        f"Storage has no object {key!r}. Put it there, or send the corpus without this key and "
        "with ?replace=true."
    )


def _too_long(key: str, number: int) -> Unusable:
    return Unusable(f"{key}:{number}: is longer than {MAX_LINE_BYTES} bytes")
