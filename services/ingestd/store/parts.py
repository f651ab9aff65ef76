"""What conversions wrote, on its way into storaged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.ingestd.core.job import Outcome, Part
from services.ingestd.store.going import Going
from shared.clients.storaged import StoragedClient
from shared.errors import PreconditionFailed
from shared.wire.catalogd import Rejects

# Parts sent to storaged at once.
_UPLOADS = 2


@dataclass(frozen=True, slots=True)
class StoredParts:
    """Keys of an ingest's parts, and its rejects."""

    keys: list[str]
    rejects: Rejects


class PartStore:
    """Stores Parquet under names made of its content.

    Args:
        objects: takes it.
    """

    def __init__(self, objects: StoragedClient) -> None:
        self._objects = objects

    async def put_outcome(self, uuid: str, outcome: Outcome, going: Going) -> StoredParts:
        """Stores what a file became: its parts and its rejects."""
        going.track.enter(
            "storing",
            rows=outcome.rows_out,
            rejects=outcome.rejects,
            parts_stored=0,
            parts_total=len(outcome.parts) + (outcome.sidecar is not None),
        )
        rejects = Rejects(count=outcome.rejects)
        wanted = _name(uuid, outcome.parts)
        keys = [key for key, _ in wanted]
        if outcome.sidecar is not None:
            key = f"datasets/{uuid}/rejects/{outcome.sidecar.sha256}.parquet"
            rejects = Rejects(count=outcome.rejects, object=key)
            wanted.append((key, outcome.sidecar))
        await self._put(wanted, going)
        return StoredParts(keys, rejects)

    async def put(self, uuid: str, parts: Sequence[Part], going: Going) -> list[str]:
        """Stores further parts; gives their keys."""
        wanted = _name(uuid, parts)
        going.track.update(parts_total=(going.track.now.parts_total or 0) + len(wanted))
        await self._put(wanted, going)
        return [key for key, _ in wanted]

    async def _put(self, wanted: Sequence[tuple[str, Part]], going: Going) -> None:
        limit = asyncio.Semaphore(_UPLOADS)
        track = going.track

        async def put(key: str, part: Part) -> None:
            async with limit:
                # The key names the content: what is under it already is the same.
                with contextlib.suppress(PreconditionFailed):
                    await going.insist(
                        lambda: self._objects.put_object(key, Path(part.path), if_none_match=True)
                    )
            track.update(parts_stored=track.now.parts_stored + 1)

        tasks = [asyncio.create_task(put(key, part)) for key, part in wanted]
        if not tasks:
            return
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def _name(uuid: str, parts: Sequence[Part]) -> list[tuple[str, Part]]:
    return [
        (f"datasets/{uuid}/{part.sha256}-{number}.parquet", part)
        for number, part in enumerate(parts)
    ]
