"""Snapshots in storaged: stored piece by piece with the manifest last, and fetched back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

from services.vectord.core.snapshots import (
    KEPT,
    MANIFEST,
    PREFIX,
    Manifest,
    index_prefix,
    parse_key,
    parse_manifest,
    piece_keys,
)
from services.vectord.store.files import Damaged, sync_folder
from shared.clients.storaged import StoragedClient
from shared.errors import NotFound, Upstream

_BLOCK = 1 << 20


class Remote:
    """The snapshots of all indexes under `_vectors/`."""

    def __init__(self, client: StoragedClient) -> None:
        self._client = client

    async def list_labels(self) -> dict[tuple[str, str], list[str]]:
        """The labels of complete snapshots by (index, uid), newest first."""
        found: dict[tuple[str, str], list[str]] = {}
        async for info in self._client.walk_objects(PREFIX):
            parsed = parse_key(info.key)
            if parsed is not None and parsed[3] == MANIFEST:
                found.setdefault(parsed[:2], []).append(parsed[2])
        return {key: sorted(labels, reverse=True) for key, labels in found.items()}

    async def store(self, folder: Path, manifest: Manifest) -> None:
        """Stores the snapshot in `folder`; on return all of it is durable there.

        Raises:
            LakehouseError: it could not be stored; trying again is harmless.
        """
        prefix = index_prefix(manifest.spec.name, manifest.uid)
        for name, entry in manifest.files.items():
            for key, start, size in piece_keys(prefix, manifest.label, name, entry.size):
                # Closed here: a request that fails leaves the rest of it unread.
                async with contextlib.aclosing(_read_range(folder / name, start, size)) as pieces:
                    stored = await self._client.put_object(key, pieces, size=size)
                if stored.size != size:
                    raise Upstream(f"storaged kept {stored.size} bytes of {size}. Try again.")
        content = (folder / MANIFEST).read_bytes()
        await self._client.put_object(f"{prefix}{manifest.label}/{MANIFEST}", content)

    async def fetch(self, name: str, uid: str, label: str, folder: Path) -> None:
        """Fetches a snapshot into `folder / label`; its hashes are checked when it is read.

        Raises:
            Damaged: parts of it are missing.
            LakehouseError: storaged cannot be reached.
        """
        prefix = index_prefix(name, uid)
        partial = folder / f"{label}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            manifest = await self.fetch_manifest(name, uid, label)
            for file, entry in manifest.files.items():
                with (partial / file).open("wb") as target:
                    for key, _, _ in piece_keys(prefix, label, file, entry.size):
                        async with self._client.get_object(key) as body:
                            async for piece in body:
                                await asyncio.to_thread(target.write, piece)
            (partial / MANIFEST).write_text(manifest.model_dump_json())
            shutil.rmtree(folder / label, ignore_errors=True)
            partial.rename(folder / label)
            sync_folder(folder)
        except NotFound:
            raise Damaged(f"the stored snapshot {label} is not complete") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    async def fetch_manifest(self, name: str, uid: str, label: str) -> Manifest:
        """The manifest of a stored snapshot.

        Raises:
            Damaged: it is missing or not one.
        """
        key = f"{index_prefix(name, uid)}{label}/{MANIFEST}"
        try:
            async with self._client.get_object(key) as body:
                manifest = parse_manifest(await body.read())
        except (NotFound, ValueError):
            raise Damaged(f"the manifest of the stored snapshot {label} is damaged") from None
        if manifest.label != label or manifest.uid != uid:
            raise Damaged(f"the manifest of the stored snapshot {label} is another one's")
        return manifest

    async def prune(self, name: str, uid: str, keep: int = KEPT) -> list[str]:
        """Removes all but the newest `keep` snapshots; gives the labels that stay."""
        labels: dict[str, list[str]] = {}
        complete: set[str] = set()
        async for info in self._client.walk_objects(index_prefix(name, uid)):
            parsed = parse_key(info.key)
            if parsed is not None:
                labels.setdefault(parsed[2], []).append(info.key)
                if parsed[3] == MANIFEST:
                    complete.add(parsed[2])
        kept = sorted(complete, reverse=True)[:keep]
        oldest_wanted = kept[-1] if kept else ""
        for label, keys in labels.items():
            if label in kept or (label > oldest_wanted and keep):
                continue
            # The manifest first: what lost it counts for nothing.
            for key in sorted(keys, key=lambda key: not key.endswith(MANIFEST)):
                await self._client.delete_object(key)
        return kept


async def _read_range(path: Path, start: int, size: int) -> AsyncGenerator[bytes]:
    # Opened at once: a thread's file would be lost to a cancel that comes while it opens.
    with path.open("rb") as file:
        file.seek(start)
        while size:
            piece = await asyncio.to_thread(file.read, min(_BLOCK, size))
            if not piece:
                return
            size -= len(piece)
            yield piece
