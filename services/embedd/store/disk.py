"""Vectors kept over restarts: one SQLite file, content-addressed, bounded, expendable.

It is a cache: what is lost is computed again, so nothing here ever fails a request. Rows
carry a checksum over key and value; a damaged row is a miss, a damaged file is put aside and
begun anew. Writes are gathered and done in one thread, off the way of requests.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from services.embedd.core.lru import Entry
from shared.pool import BlockingPool

logger = logging.getLogger("lakehouse.embedd")

FILE = "cache.sqlite"
DAMAGED = "cache.damaged.sqlite"
# Raised when the meaning of rows changes; an older file is begun anew.
LAYOUT = 1
# Rows written at once, and the longest that one waits for company. Seconds.
FLUSH_ROWS = 512
FLUSH_AFTER_S = 0.25
# Rows that may wait for the disk; past that they are not kept.
MAX_PENDING = 50_000
# Keys asked for in one statement (SQLite's limit on parameters is larger).
KEYS_AT_ONCE = 500
# What goes when the file is full: this part of the rows, the oldest first.
EVICT = 1 / 10
_HEAD = struct.Struct("<IIB")


class DiskCache:
    """Looks up and keeps entries by key; all of it may fail without anyone noticing.

    Args:
        folder: where its file lies; it is this process's own.
        max_bytes: most that the file may take.
        count_fault: called for each damaged row, file, or failed write.
    """

    def __init__(self, folder: Path, max_bytes: int, count_fault: Callable[[], None]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._count_fault = count_fault
        self._pool = BlockingPool("embedd-cache", 1, 10_000)
        self._pending: dict[bytes, Entry] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._file: sqlite3.Connection | None = None

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Those of the keys that are kept."""
        found = {key: self._pending[key] for key in keys if key in self._pending}
        rest = [key for key in keys if key not in found]
        if rest:
            found.update(await self._pool.run(self._read, rest))
        return found

    def keep(self, key: bytes, entry: Entry) -> None:
        """Writes the entry soon."""
        if len(self._pending) >= MAX_PENDING:
            return
        self._pending[key] = entry
        if len(self._pending) >= FLUSH_ROWS:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self._flush)

    async def aclose(self) -> None:
        """Writes what is left and closes the file."""
        while self._pending or self._writing:
            self._flush()
            if self._writing is not None:
                await self._writing
        if self._timer is not None:
            self._timer.cancel()
        await self._pool.run(self._close)
        self._pool.close()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and self._pending:
            self._writing = asyncio.get_running_loop().create_task(self._write_pending())

    async def _write_pending(self) -> None:
        rows = dict(self._pending)
        try:
            await self._pool.run(self._write, rows)
        finally:
            # Kept until written, so that `find` never misses what is on its way.
            for key, entry in rows.items():
                if self._pending.get(key) is entry:
                    del self._pending[key]
            self._writing = None
            if self._pending and self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(FLUSH_AFTER_S, self._flush)

    # In the thread from here on.

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        found: dict[bytes, Entry] = {}
        bad: list[tuple[bytes]] = []
        try:
            file = self._open()
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, value in file.execute(
                    f"select key, value from vectors where key in ({marks})", some
                ):
                    entry = unpack_entry(key, value)
                    if entry is None:
                        bad.append((key,))
                    else:
                        found[key] = entry
            if bad:
                self._count_fault()
                logger.warning("%d damaged rows of the vector cache are dropped", len(bad))
                with file:
                    file.executemany("delete from vectors where key = ?", bad)
        except (sqlite3.Error, OSError) as error:
            self._recover(error)
        return found

    def _write(self, rows: dict[bytes, Entry]) -> None:
        try:
            file = self._open()
            with file:
                file.executemany(
                    "insert or ignore into vectors (key, value) values (?, ?)",
                    [(key, pack_entry(key, entry)) for key, entry in rows.items()],
                )
            self._evict(file)
        except (sqlite3.Error, OSError) as error:
            self._recover(error)

    def _evict(self, file: sqlite3.Connection) -> None:
        size = file.execute("pragma page_size").fetchone()[0]
        while True:
            pages = file.execute("pragma page_count").fetchone()[0]
            free = file.execute("pragma freelist_count").fetchone()[0]
            if (pages - free) * size <= self._max_bytes:
                return
            first, last = file.execute("select min(id), max(id) from vectors").fetchone()
            if first is None:
                return
            with file:
                upto = first + int((last - first) * EVICT)
                file.execute("delete from vectors where id <= ?", (upto,))

    def _open(self) -> sqlite3.Connection:
        if self._file is None:
            file = sqlite3.connect(self._folder / FILE, check_same_thread=False)
            self._file = file
            layout = file.execute("pragma user_version").fetchone()[0]
            if layout != LAYOUT:
                file.executescript(
                    f"""
                    pragma journal_mode = wal;
                    drop table if exists vectors;
                    create table vectors (
                        id integer primary key autoincrement,
                        key blob not null unique,
                        value blob not null
                    );
                    pragma user_version = {LAYOUT};
                    """
                )
            # A crash of the machine may lose the last writes, never the file's order.
            file.execute("pragma synchronous = normal")
        return self._file

    def _recover(self, error: Exception) -> None:
        self._count_fault()
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        self._close()
        if not damaged:
            # A full disk, no rights: the file is as it was. The next use tries again.
            logger.warning("The vector cache on disk cannot be used now: %s", error)
            return
        logger.error(
            "The vector cache on disk is damaged (%s); it is put aside, a new one begun", error
        )
        for suffix in ("-wal", "-shm"):
            (self._folder / (FILE + suffix)).unlink(missing_ok=True)
        try:
            (self._folder / FILE).replace(self._folder / DAMAGED)
        except OSError as problem:
            logger.error("It could not be put aside: %s", problem.strerror)

    def _close(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except sqlite3.Error as error:
                logger.warning("The vector cache on disk did not close cleanly: %s", error)
            self._file = None


def pack_entry(key: bytes, entry: Entry) -> bytes:
    """An entry as a row's value: CRC-32 over key and rest, tokens, truncated, the numbers."""
    rest = _HEAD.pack(0, entry.tokens, entry.truncated)[4:] + entry.vector
    return zlib.crc32(rest, zlib.crc32(key)).to_bytes(4, "little") + rest


def unpack_entry(key: bytes, value: object) -> Entry | None:
    """The entry in a row's value; None when it does not check out."""
    if not isinstance(value, bytes) or len(value) < _HEAD.size:
        return None
    crc, tokens, truncated = _HEAD.unpack_from(value)
    if crc != zlib.crc32(value[4:], zlib.crc32(key)):
        return None
    return Entry(value[_HEAD.size :], tokens, bool(truncated))
