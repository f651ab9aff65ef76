"""DuckDB as the worker uses it: read text, convert it by checked casts, write Parquet."""

from __future__ import annotations

import errno
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Protocol

import duckdb

from services.ingestd.core.checks import MACROS, quote_name, quote_text
from services.ingestd.core.fields import Dialect
from services.ingestd.core.job import Limits, Part
from services.ingestd.worker.meter import METER
from shared.errors import InsufficientStorage, Internal, LakehouseError, Unprocessable

logger = logging.getLogger("lakehouse.ingestd.worker")

# What a cast says that found a value its column's type does not hold.
_MISFIT = re.compile(r"lk-misfit:(\d+)")
# DuckDB's own longest line unless told otherwise, and the least that it reads at a time.
LINE_BYTES = 2 * 1000 * 1000
# Measured on 500,000 staffing rows: zstd at level 1 costs no more time than snappy and
# makes files a third smaller.
COMPRESSION = "COMPRESSION zstd, COMPRESSION_LEVEL 1"
# Of text in one row group where memory is short.
FRUGAL_GROUP_BYTES = 32 * 1024 * 1024
INGEST_ID_KEY = "lakehouse.ingest_id"
# As DuckDB wants them: a backslash and a letter.
NEWLINES = {False: r"'\n'", True: r"'\r\n'"}


class Misfit(Exception):
    """A value does not hold to the type that was guessed for its column."""

    def __init__(self, column: int) -> None:
        super().__init__(f"column {column}")
        self.column = column


class Unreadable(Exception):
    """DuckDB's CSV reader does not take the file; the careful reader has to."""


class Damaged(Exception):
    """DuckDB's Parquet reader does not take the file."""


class OutOfMemory(Exception):
    """The memory limit does not do for this file in this way."""


class Rows(Protocol):
    """Rows that DuckDB reads: columns c0, c1, …, and where it can be told `line` and `span`."""

    @property
    def size(self) -> int:
        """Bytes as they are read."""
        ...

    def sql(self, *, frugal: bool) -> str:
        """A relation for FROM; `frugal` reads little at a time."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A regular CSV file.

    Attributes:
        path: where it lies.
        dialect: how it is written; quotes are doubled.
        has_header: whether to pass over a first record.
        width: number of fields that hold data.
        numbered: whether each row begins with its line number and line count.
        crlf: whether lines end in `\\r\\n`.
        longest: bytes of the longest record, if known.
        size: bytes in all.
    """

    path: Path
    dialect: Dialect
    has_header: bool
    width: int
    numbered: bool
    crlf: bool
    longest: int
    size: int

    def sql(self, *, frugal: bool) -> str:
        """A `read_csv` with columns c0, c1, …, all text; line and span where numbered.

        Args:
            frugal: reads little at a time.
        """
        names = [column(index) for index in range(self.width)]
        types = dict.fromkeys(names, "VARCHAR")
        if self.numbered:
            types = {"line": "BIGINT", "span": "BIGINT", **types}
        columns = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
        quote = quote_text(self.dialect.quote.decode())
        line_bytes = max(LINE_BYTES, self.longest + 64)
        # strict_mode is true already; said aloud together with \\r\\n it makes 1.5.5 find no
        # row at all.
        return (
            f"read_csv({quote_text(str(self.path))}, auto_detect=false, "
            f"header={'true' if self.has_header else 'false'}, "
            f"delim={quote_text(self.dialect.delimiter.decode())}, quote={quote}, escape={quote}, "
            f"columns={{{columns}}}, nullstr='', allow_quoted_nulls=false, "
            f"new_line={NEWLINES[self.crlf]}, "
            f"max_line_size={line_bytes}{f', buffer_size={2 * line_bytes}' if frugal else ''})"
        )


def column(index: int) -> str:
    """The name of a file's column inside SQL; what callers call it may be anything."""
    return f"c{index}"


def raise_misfit(index: int) -> str:
    """An SQL expression that ends the statement: column `index` holds a misfit."""
    return f"error('lk-misfit:{index}')"


class Session:
    """One DuckDB in memory for one job.

    It begins with all its threads. When memory does not do, or is known not to, it becomes
    frugal for good: one thread, small buffers, row groups by their bytes.

    Args:
        folder: for what does not fit in memory, and for results.
        limits: memory and threads.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.frugal = False
        self._attempts = 0
        self._distrusts = False
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "threads": limits.threads,
                "memory_limit": f"{limits.memory_bytes // 1024} KiB",
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        self.execute("SET TimeZone = 'UTC'")
        # It is measured for whoever follows the job, and not printed.
        self.execute("SET enable_progress_bar = true")
        self.execute("SET enable_progress_bar_print = false")
        for macro in MACROS:
            self.execute(macro)

    def close(self) -> None:
        """Gives its memory back."""
        self._connection.close()

    def distrust(self) -> None:
        """From now on a failure is the fault of the file that is read."""
        self._distrusts = True

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Runs a statement, its failures told apart.

        Raises:
            Misfit, Unreadable, OutOfMemory, InsufficientStorage, Internal.
        """
        try:
            return self._connection.execute(sql)
        except (duckdb.Error, MemoryError) as error:
            raise explain(error, self._distrusts) from error

    def read(self, source: Rows) -> str:
        """The SQL that reads a source as it is read now."""
        return source.sql(frugal=self.frugal)

    def fetch_row(self, select: str, source: Rows) -> tuple[Any, ...]:
        """The only row of a query over a source.

        Raises:
            Unprocessable: there is not enough memory for it.
        """
        while True:
            try:
                row = self.execute(f"SELECT {select} FROM {self.read(source)}").fetchone()
            except OutOfMemory:
                self.save_memory()
                continue
            if row is None:
                raise Internal("A query of ingestd's own gave no row.")
            return row

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        return self.execute(sql).fetchall()

    def stream_rows(self, sql: str, at_once: int = 2048) -> Iterator[tuple[Any, ...]]:
        """The rows of a result, little by little."""
        result = self.execute(sql)
        while True:
            try:
                rows = result.fetchmany(at_once)
            except (duckdb.Error, MemoryError) as error:
                raise explain(error, self._distrusts) from error
            if not rows:
                return
            yield from rows

    def interrupt(self) -> None:
        """Ends the statement that another thread is running; it raises Unreadable."""
        self._connection.interrupt()

    def save_memory(self) -> None:
        """Becomes frugal.

        Raises:
            Unprocessable: it is already.
        """
        if self.frugal:
            what = "rows are" if not self._distrusts else "rows or row groups are"
            advice = (
                "split its widest columns"
                if not self._distrusts
                else (
                    "write it with smaller row groups (of 100,000 rows, and no large dictionaries)"
                )
            )
            raise Unprocessable(
                f"The file's {what} too large for {self.limits.memory_bytes // 1024**2} MiB of "
                f"memory. Raise ingestd.worker_memory_mb, or {advice}."
            )
        self.frugal = True
        self.execute("SET threads = 1")
        # One thread keeps the order by itself; row groups by bytes are not to be had otherwise.
        self.execute("SET preserve_insertion_order = false")

    def copy(
        self, expressions: str, source: Rows, where: str, ingest_id: str, row_bytes: int
    ) -> list[Part]:
        """Writes a source's rows as Parquet parts of at most the limit's size.

        Args:
            expressions: of the columns.
            source: what is read.
            where: which rows, as a clause or empty.
            ingest_id: goes into the files' metadata.
            row_bytes: bytes of an average row as text, for the size of row groups.

        Raises:
            Misfit, Unreadable: the rows are not as expected.
            Unprocessable: there is not enough memory for them.
        """
        limit = self.limits.part_bytes
        rows = max(2048, min(self.limits.row_group_rows, limit // 8 // max(row_bytes, 1)))
        # A file is closed after the row group that passes its size; several may be under way.
        target = limit - min(limit // 2, 2 * rows * max(row_bytes, 1))
        divided = source.size > limit // 2
        while True:
            folder = self._make_folder()
            options = [
                f"FORMAT parquet, {COMPRESSION}, ROW_GROUP_SIZE {rows}, RETURN_STATS",
                f"KV_METADATA {{{quote_text(INGEST_ID_KEY)}: {quote_text(ingest_id)}}}",
            ]
            if self.frugal:
                options.append(f"ROW_GROUP_SIZE_BYTES {min(limit // 4, FRUGAL_GROUP_BYTES)}")
            if divided:
                options.append(f"FILE_SIZE_BYTES {target}")
            place = folder if divided else folder / "part.parquet"
            statement = (
                f"COPY (SELECT {expressions} FROM {self.read(source)}{where}) "
                f"TO {quote_text(str(place))} ({', '.join(options)})"
            )
            METER.follow_query(self._connection, source.size)
            try:
                written = self.execute(statement).fetchall()
            except OutOfMemory:
                self.save_memory()
                continue
            finally:
                METER.end_query()
            parts = [(Path(row[0]), int(row[1])) for row in written if row[1]]
            if all(path.stat().st_size <= limit for path, _ in parts):
                return [
                    Part(str(path), digest(path), path.stat().st_size, count)
                    for path, count in parts
                ]
            if divided:
                target //= 2
                rows = max(2048, rows // 4)
                if target < limit // 64:
                    self.save_memory()
                    target = limit // 4
            divided = True

    def _make_folder(self) -> Path:
        """A new folder for parts; what an earlier attempt left is removed."""
        shutil.rmtree(self.folder / f"parts-{self._attempts}", ignore_errors=True)
        self._attempts += 1
        folder = self.folder / f"parts-{self._attempts}"
        folder.mkdir()
        return folder


def digest(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def explain(error: Exception, distrusts: bool = False) -> Exception:
    """What a failure of DuckDB means here. Its text may hold paths, so none of it goes on.

    Args:
        distrusts: whether it reads a file that others wrote and nothing has checked.
    """
    text = str(error)
    misfit = _MISFIT.search(text)
    if misfit:
        return Misfit(int(misfit[1]))
    if is_disk_full(error):
        return disk_full()
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError) or "bad_alloc" in text:
        return OutOfMemory()
    if distrusts:
        logger.warning("DuckDB cannot read what was sent: %s", text)
        return Damaged()
    if isinstance(error, duckdb.InterruptException) or "CSV" in text or "unicode" in text.lower():
        return Unreadable()
    logger.error("DuckDB failed: %s", text)
    return Internal("DuckDB failed while converting the file. The log of ingestd has its words.")


def is_disk_full(error: BaseException) -> bool:
    """Whether a failure is that of a full disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def disk_full() -> LakehouseError:
    """The answer to a full disk."""
    return InsufficientStorage(
        "The disk that ingestd works on is full. Free some space there, then send the file again."
    )


def select_list(pairs: Sequence[tuple[str, str]]) -> str:
    """`expression AS "name"`, … for a SELECT."""
    return ", ".join(f"{expression} AS {quote_name(name)}" for expression, name in pairs)
