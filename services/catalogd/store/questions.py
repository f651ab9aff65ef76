"""What a register asks storaged: whether its objects are there, and where they lie."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection

from shared.clients.storaged import StoragedClient
from shared.errors import Conflict, NotFound, Unprocessable
from shared.wire.storaged import ObjectInfo

# Questions at once for one register.
ASKING = 16
# Objects named in one refusal.
_NAMED = 20


class Questions:
    """Asks about objects by key.

    Args:
        objects: the client of storaged.
    """

    def __init__(self, objects: StoragedClient) -> None:
        self._objects = objects

    async def locate(self, dataset: str, names: list[str]) -> set[str]:
        """Addresses of the files that a rewrite takes out, named by address or by key."""
        addresses = {name for name in names if "://" in name}
        keys = sorted(set(names) - addresses)
        found, missing = await self._find(keys)
        if missing:
            raise missing_files(dataset, missing)
        return addresses | {info.uri for info in found.values()}

    async def describe(self, keys: list[str]) -> list[ObjectInfo]:
        """Every object, in order.

        Raises:
            Unprocessable: one is not there, or named twice.
        """
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise Unprocessable(
                f"Object {twice[0]!r} is named more than once. Name each object once.",
                details={"objects": twice[:_NAMED]},
            )
        found, missing = await self._find(keys)
        if missing:
            missing.sort()
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise Unprocessable(
                f"storaged has no object {missing[0]!r}{more}. Store it, then register it.",
                details={"missing": missing[:_NAMED], "missing_count": len(missing)},
            )
        return [found[key] for key in keys]

    async def _find(self, keys: list[str]) -> tuple[dict[str, ObjectInfo], list[str]]:
        """What storaged has of these keys, and those it has not."""
        found: dict[str, ObjectInfo] = {}
        missing: list[str] = []
        waiting = iter(keys)

        async def ask() -> None:
            for key in waiting:
                try:
                    found[key] = await self._objects.head_object(key)
                except NotFound:
                    missing.append(key)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(ASKING, len(keys))):
                    group.create_task(ask())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return found, missing


def missing_files(dataset: str, missing: Collection[str]) -> Conflict:
    """What a rewrite hears whose files are not there (any more)."""
    shown = sorted(missing)
    more = f" and {len(shown) - 1} more" if len(shown) > 1 else ""
    return Conflict(
        f"Dataset {dataset} does not hold {shown[0]!r}{more} now: another write took it out. "
        "Nothing was changed; ask for its files, and plan the write anew.",
        details={"dataset": dataset, "missing": shown[:20], "missing_count": len(shown)},
    )
