"""Compaction as a whole: plan, fetch, merge in a process of its own, store, commit.

Dying anywhere leaves objects that nothing names, which are collected; the commit itself is one
snapshot with the same rows. catalogd holds no row of it: the process that does is started for
it, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
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
from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, PreconditionFailed
from shared.sections.data import CatalogdSection
from shared.wire.catalogd import Compacted

MiB = 1024 * 1024
# Reasons told in one answer.
_TOLD = 10

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
    """A group that was merged: what goes, what comes, and why some of it stays."""

    old: list[OldFile] = field(default_factory=list[OldFile])
    new: list[ParquetFile] = field(default_factory=list[ParquetFile])


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
            skipped: list[str] = []
            merged: list[_Merged] = []
            for group in plan.groups:
                merged.append(await self._merge(plan, group, rooms, reads, skipped, target_mb))
            return await self._commit(name, plan, merged, skipped, writes, since)

    async def _merge(
        self,
        plan: Plan,
        group: Sequence[OldFile],
        rooms: Rooms,
        reads: Reads,
        skipped: list[str],
        target_mb: int | None,
    ) -> _Merged:
        def check() -> list[OldFile]:
            fit: list[OldFile] = []
            for file in group:
                problem = rooms.compactor.find_problem(file, plan.columns)
                if problem is None:
                    fit.append(file)
                else:
                    skipped.append(problem)
            return fit

        old = await reads(check)
        if len(old) < 2:
            return _Merged()
        await anyio.Path(self._folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            folder = Path(made)
            job = MergeJob(
                inputs=tuple([await self._fetch(file, folder, n) for n, file in enumerate(old)]),
                folder=made,
                columns=plan.columns,
                target_bytes=(target_mb or self._section.compact_target_mb) * MiB,
                memory_bytes=self._section.compact_memory_mb * MiB,
            )
            try:
                parts = await merge_files(job)
            except MergeFailed as error:
                skipped.append(f"{old[0].uri} and {len(old) - 1} more: {error}")
                return _Merged()
            new: list[ParquetFile] = []
            for number, part in enumerate(parts):
                key = f"datasets/{plan.uuid}/{part.sha256}-{number}.parquet"
                # One of an earlier try will do: the key names the content.
                with contextlib.suppress(PreconditionFailed):
                    await self._objects.put_object(key, Path(part.path), if_none_match=True)
                info = await self._objects.head_object(key)
                new.append(
                    await reads(
                        lambda info=info: rooms.compactor.read_file(info.key, info.uri, info.size)
                    )
                )
        same = all(
            fingerprint_columns(file.columns) == fingerprint_columns(plan.columns) for file in new
        )
        if not same or sum(file.rows for file in new) != sum(file.rows for file in old):
            skipped.append(f"{old[0].uri} and {len(old) - 1} more cannot be written anew unchanged")
            return _Merged()
        return _Merged(old, new)

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

    async def _commit(
        self,
        name: str,
        plan: Plan,
        merged: list[_Merged],
        skipped: list[str],
        writes: Writes,
        since: int,
    ) -> Compacted:
        merged = [group for group in merged if group.old]
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
