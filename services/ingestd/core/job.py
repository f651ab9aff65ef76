"""What the daemon asks of a worker, and what it gets back, as plain JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from services.ingestd.core.options import Options, options_from


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one conversion. Sizes in bytes.

    Attributes:
        part_bytes: largest Parquet part.
        row_group_rows: most rows of a row group.
        record_bytes: longest line or record.
        columns: most columns.
        memory_bytes: what DuckDB may use.
        threads: of DuckDB.
        unpacked_bytes: most that a packed file may unpack to.
        unpack_ratio: most that it may unpack to for each byte of its own.
    """

    part_bytes: int = 128 * 1024 * 1024
    row_group_rows: int = 61_440
    record_bytes: int = 16 * 1024 * 1024
    columns: int = 2_000
    memory_bytes: int = 448 * 1024 * 1024
    threads: int = 2
    unpacked_bytes: int = 256 * 1024 * 1024 * 1024
    unpack_ratio: int = 250


@dataclass(frozen=True, slots=True)
class Job:
    """One file to convert.

    Attributes:
        source: path of the file.
        folder: an empty folder for what is made of it; the caller removes it.
        ingest_id: goes into the Parquet files, so that each ingest's content is its own.
        options: what the caller asked for.
        table: name and type of the columns of the table that exists, if one does; "" for a
            type that is still open (`bundle`).
        limits: bounds.
        name: what callers know the file by, where it is one of several.
        number: its place among these.
        shared: path of a Parquet file of keys that come in several of these, with the number
            of the last file that has each, and its name (`keyed`); "" for none.
    """

    source: str
    folder: str
    ingest_id: str
    options: Options
    table: tuple[tuple[str, str], ...] | None
    limits: Limits
    name: str = ""
    number: int = 0
    shared: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Job:
        """The job that `to_json` described."""
        table = values["table"]
        return Job(
            source=values["source"],
            folder=values["folder"],
            ingest_id=values["ingest_id"],
            options=options_from(values["options"]),
            table=None if table is None else tuple((name, kind) for name, kind in table),
            limits=Limits(**values["limits"]),
            name=values["name"],
            number=values["number"],
            shared=values["shared"],
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file: where it lies, its SHA-256 in hex, its bytes and its rows."""

    path: str
    sha256: str
    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class FileAccount:
    """What one of several files became."""

    name: str
    rows_in: int
    rows_out: int
    rejects: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a file became. `rows_in = rows_out + rejects`, checked.

    Attributes:
        parts: Parquet files of the rows.
        sidecar: Parquet file of what was left out, None if nothing was.
        rejects: rows left out. `discarded`: values left out of rows that were kept.
        columns: name and type.
        warnings: what the caller should know, a sentence or two each.
        seconds: time by stage.
        open: columns that no value, and no table, gave a type to; they are text.
        files: the account of each, where there are several.
    """

    parts: tuple[Part, ...]
    sidecar: Part | None
    rows_in: int
    rows_out: int
    rejects: int
    discarded: int
    columns: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    open: tuple[str, ...] = ()
    files: tuple[FileAccount, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` described."""
        sidecar = values["sidecar"]
        return Outcome(
            parts=tuple(Part(**part) for part in values["parts"]),
            sidecar=None if sidecar is None else Part(**sidecar),
            rows_in=values["rows_in"],
            rows_out=values["rows_out"],
            rejects=values["rejects"],
            discarded=values["discarded"],
            columns=tuple((name, kind) for name, kind in values["columns"]),
            warnings=tuple(values["warnings"]),
            seconds=dict(values["seconds"]),
            open=tuple(values["open"]),
            files=tuple(FileAccount(**one) for one in values["files"]),
        )
