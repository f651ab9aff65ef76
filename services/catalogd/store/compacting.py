"""Compaction as a whole: plan, fetch, merge in a process of its own, store, commit.

Dying anywhere leaves objects that nothing names, which are collected; the commit itself is one
snapshot with the same rows. catalogd holds no row of it: the process that does is started for
it, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import anyio

from services.catalogd.core.addresses import find_key
from services.catalogd.core.job import MergeJob
from services.catalogd.core.schema import fingerprint_columns
from services.catalogd.store.compaction import OldFile, Plan
from services.catalogd.store.figures import Figures
from services.catalogd.store.fileio import local_path
from services.catalogd.store.merging import MergeFailed, merge_files
from services.catalogd.store.parquet import ParquetFile
from services.catalogd.store.rooms import Rooms
from shared import context
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, PreconditionFailed
from shared.sections.data import CatalogdSection
from shared.wire.catalogd import Compacted

MiB = 1024 * 1024
# Reasons told in one answer.
_TOLD = 10
# Processes that one round starts at most, when merges fail.
MOST_TRIES = 24
# What is left for the commit when a caller's time runs out, seconds.
_COMMIT_S = 5.0

T = TypeVar("T")


class Reads(Protocol):
    """Has something that blocks done in a thread of the pool for reading."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """The result of `work`."""
        ...


class Writes(Protocol):
    """Has a commit done in its dataset's turn."""

    def __call__(self, name: str, work: Callable[[Rooms, float], T]) -> Awaitable[T]:
        """The result of `work`, which gets the rooms and the caller's patience in seconds."""
        ...


@dataclass
class _Merged:
    """Files that were merged, and those that take their place."""

    old: list[OldFile]
    new: list[ParquetFile]


@dataclass
class _Round:
    """What one round has done so far."""

    plan: Plan
    rooms: Rooms
    reads: Reads
    target_mb: int
    merged: list[_Merged] = field(default_factory=list[_Merged])
    skipped: list[str] = field(default_factory=list[str])
    tries: int = 0


class Compaction:
    """Merges the files of one dataset after another.

    Args:
        section: sizes and limits.
        folder: where files lie while they are merged.
        bucket: what addresses of objects begin with when they lie in a bucket, else empty.
        objects: the client of storaged.
        figures: where merges are counted.
    """

    def __init__(
        self,
        section: CatalogdSection,
        folder: Path,
        bucket: str,
        objects: StoragedClient,
        figures: Figures,
    ) -> None:
        self._section = section
        self._folder = folder
        self._bucket = bucket
        self._objects = objects
        self._figures = figures
        # One merge at a time: each takes a core, and memory.
        self._turn = asyncio.Lock()

    async def run(
        self,
        name: str,
        rooms: Rooms,
        reads: Reads,
        writes: Writes,
        since: int,
        *,
        target_mb: int | None = None,
        by_itself: bool = False,
    ) -> Compacted:
        """Merges what one round may.

        Args:
            since: the epoch of collection now.
            target_mb: in place of the configured size.
            by_itself: only where it pays; else whatever can be merged.
        """
        async with self._turn:
            section = self._section
            plan = await reads(
                lambda: rooms.compactor.plan(
                    name,
                    (target_mb or section.compact_target_mb) * MiB,
                    least=section.compact_min_files if by_itself else 2,
                    tiered=by_itself,
                    budget=section.compact_round_mb * MiB,
                )
            )
            round_ = _Round(plan, rooms, reads, target_mb or section.compact_target_mb)
            longest = 0.0
            for number, group in enumerate(plan.groups):
                left = context.remaining_s()
                if number and left is not None and left < 2 * longest + _COMMIT_S:
                    # Better what is done than a caller who is told nothing.
                    round_.plan = dataclasses.replace(plan, more=True)
                    break
                began = time.monotonic()
                await self._merge(round_, await self._choose_fit(round_, group))
                longest = max(longest, time.monotonic() - began)
            return await self._commit(name, round_, writes, since)

    async def _choose_fit(self, round_: _Round, group: Sequence[OldFile]) -> list[OldFile]:
        """The files that can be merged; of the others it is noted why not."""

        def check() -> list[OldFile]:
            fit: list[OldFile] = []
            for file in group:
                problem = round_.rooms.compactor.find_problem(file, round_.plan.columns)
                if problem is None:
                    fit.append(file)
                else:
                    round_.skipped.append(problem)
            return fit

        return await round_.reads(check)

    async def _merge(self, round_: _Round, old: list[OldFile]) -> None:
        """Merges files; where that fails it tries each half, to leave out the bad one alone."""
        if len(old) < 2:
            return
        try:
            if round_.tries >= MOST_TRIES:
                raise MergeFailed("too many merges have failed in this round")
            round_.tries += 1
            round_.merged.append(_Merged(old, await self._merge_once(round_, old)))
        except MergeFailed as error:
            if len(old) > 2 and round_.tries < MOST_TRIES:
                half = len(old) // 2
                await self._merge(round_, old[:half])
                await self._merge(round_, old[half:])
            else:
                round_.skipped.append(f"{old[0].uri} and {len(old) - 1} more: {error}")

    async def _merge_once(self, round_: _Round, old: list[OldFile]) -> list[ParquetFile]:
        """The new files, stored.

        Raises:
            MergeFailed: an old one is damaged, or cannot be written anew unchanged.
        """
        plan, rooms = round_.plan, round_.rooms
        await anyio.Path(self._folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            folder = Path(made)
            job = MergeJob(
                inputs=tuple([await self._fetch(file, folder, n) for n, file in enumerate(old)]),
                folder=made,
                columns=plan.columns,
                target_bytes=round_.target_mb * MiB,
                memory_bytes=self._section.compact_memory_mb * MiB,
            )
            new: list[ParquetFile] = []
            for number, part in enumerate(await merge_files(job)):
                key = f"datasets/{plan.uuid}/{part.sha256}-{number}.parquet"
                # One of an earlier try will do: the key names the content.
                with contextlib.suppress(PreconditionFailed):
                    await self._objects.put_object(key, Path(part.path), if_none_match=True)
                info = await self._objects.head_object(key)
                new.append(
                    await round_.reads(
                        lambda info=info: rooms.compactor.read_file(info.key, info.uri, info.size)
                    )
                )
        wanted = fingerprint_columns(plan.columns)
        same = all(fingerprint_columns(file.columns) == wanted for file in new)
        if not same or sum(file.rows for file in new) != sum(file.rows for file in old):
            raise MergeFailed("they cannot be written anew unchanged")
        return new

    async def _fetch(self, file: OldFile, folder: Path, number: int) -> str:
        """A path that has the file's bytes."""
        key = find_key(file.uri, self._bucket, "")
        if not self._bucket or key is None:
            return local_path(file.uri)
        target = folder / f"old-{number}.parquet"
        async with self._objects.get_object(key) as body, await anyio.open_file(target, "wb") as to:
            async for piece in body:
                await to.write(piece)
        return str(target)

    async def _commit(self, name: str, round_: _Round, writes: Writes, since: int) -> Compacted:
        plan, merged, skipped = round_.plan, round_.merged, round_.skipped
        while merged:
            old = [file for group in merged for file in group.old]
            new = [file for group in merged for file in group.new]
            try:
                snapshot_id = await writes(
                    name,
                    lambda rooms, patience, old=old, new=new: rooms.compactor.commit(
                        name, plan, old, new, since, patience
                    ),
                )
            except Conflict as error:
                # A write took files out meanwhile: what was merged without them still counts.
                gone = set((error.details or {}).get("missing", ()))
                kept = [g for g in merged if not gone.intersection(f.uri for f in g.old)]
                skipped.append(error.message)
                merged = kept if len(kept) < len(merged) else []
                continue
            self._figures.upkeep.labels("compact").inc()
            self._figures.merged_files.inc(len(old))
            self._figures.merged_bytes.inc(sum(file.size for file in new))
            return Compacted(
                dataset=name,
                snapshot_id=snapshot_id,
                status="updated",
                files_before=plan.files,
                files_after=plan.files - len(old) + len(new),
                merged_files=len(old),
                merged_bytes=sum(file.size for file in old),
                more=plan.more,
                skipped=skipped[:_TOLD],
            )
        return Compacted(
            dataset=name,
            snapshot_id=plan.snapshot_id,
            status="unchanged",
            files_before=plan.files,
            files_after=plan.files,
            merged_files=0,
            merged_bytes=0,
            more=False,
            skipped=skipped[:_TOLD],
        )
