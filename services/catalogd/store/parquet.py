"""Objects as files of a table: their footers read, and their entries for manifests made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from services.catalogd.core.bounds import Statistics, summarise, widen_bound
from services.catalogd.core.columns import read_columns
from services.catalogd.core.footer import MAGIC, TAIL, Footer, parse_footer, parse_tail
from services.catalogd.core.schema import find_name_problem
from services.catalogd.core.thrift import Corrupt
from services.catalogd.core.types import Columns, Path, walk_leaves
from shared.errors import Conflict, Unprocessable
from shared.wire.storaged import ObjectInfo

# Keys that mean the same in an address to every engine: no pattern, no query, no escape.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._~=/-]+")
# Columns named in one refusal.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """One object that can be part of a dataset."""

    key: str
    uri: str
    size: int
    rows: int
    columns: Columns
    statistics: Statistics


def read_parquet(io: FileIO, info: ObjectInfo) -> ParquetFile:
    """Reads an object's footer.

    Raises:
        Unprocessable: it is no Parquet file, or has what a dataset cannot hold.
        Conflict: it changed or vanished since storaged described it.
    """
    key = info.key
    if info.uri.startswith("s3://") and not _PLAIN_KEY.fullmatch(key):
        raise Unprocessable(
            f"Object {key!r} has a key that engines read differently in an s3 address. Store it "
            "under one of letters, digits and the signs . _ - = ~ between slashes.",
            details={"object": key},
        )
    try:
        footer = _read_footer(io, info)
        columns, problems = read_columns(footer)
    except FileNotFoundError:
        raise Conflict(f"Object {key!r} was deleted meanwhile. Store it again.") from None
    except Corrupt as error:
        raise Unprocessable(
            f"Object {key!r} is not a readable Parquet file: {error}. Store it again, or ingest "
            "it with POST /ingest if it is of another format.",
            details={"object": key, "problem": str(error)},
        ) from error
    if problems:
        name, problem = next(iter(problems.items()))
        more = f", and {len(problems) - 1} more columns" if len(problems) > 1 else ""
        listed = [{"name": n, "problem": p} for n, p in problems.items()]
        raise Unprocessable(
            f"Object {key!r} has what a dataset cannot hold: column {name!r} {problem}{more}.",
            details={"object": key, "columns": listed[:_NAMED]},
        )
    if problem := find_name_problem(columns):
        raise Unprocessable(
            f"Object {key!r} cannot be a table: {problem}.",
            details={"object": key, "problem": problem},
        )
    return ParquetFile(key, info.uri, info.size, footer.rows, columns, summarise(footer, columns))


def _read_footer(io: FileIO, info: ObjectInfo) -> Footer:
    source = io.new_input(info.uri)
    with source.open() as stream:
        size = len(source)
        if size != info.size:
            raise Conflict(f"Object {info.key!r} was replaced meanwhile. Send the request again.")
        if size < len(MAGIC) + TAIL or stream.read(len(MAGIC)) != MAGIC:
            raise Corrupt("it does not begin as a Parquet file")
        stream.seek(size - TAIL)
        length = parse_tail(stream.read(TAIL), size)
        stream.seek(size - TAIL - length)
        return parse_footer(stream.read(length), size)


def make_data_file(file: ParquetFile, table: Columns, ids: Mapping[Path, int]) -> DataFile:
    """The manifest's entry of a file in a table with these columns and field ids."""
    types = dict(walk_leaves(table))
    own = dict(walk_leaves(file.columns))
    statistics = file.statistics

    def bounds(by_path: Mapping[Path, bytes]) -> dict[int, bytes]:
        return {
            ids[path]: widen_bound(own[path], types[path], bound) for path, bound in by_path.items()
        }

    def counts(by_path: Mapping[Path, int]) -> dict[int, int]:
        return {ids[path]: value for path, value in by_path.items()}

    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=file.uri,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=file.rows,
        file_size_in_bytes=file.size,
        sort_order_id=None,
        spec_id=0,
        equality_ids=None,
        key_metadata=None,
        column_sizes=counts(statistics.column_sizes),
        value_counts=counts(statistics.value_counts),
        null_value_counts=counts(statistics.null_value_counts),
        nan_value_counts={},
        lower_bounds=bounds(statistics.lower_bounds),
        upper_bounds=bounds(statistics.upper_bounds),
        split_offsets=statistics.split_offsets,
    )
