"""Streams under watch over the journal: a batch is durable before it is answered.

A record says what was done; the state is folded from the newest checkpoint and the records
behind it, so a restart goes on where the last answer was.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from services.observerd.core.drift.alarms import (
    Stream,
    estimate_mean,
    feed_stream,
    open_stream,
    reset_stream,
)
from services.observerd.core.drift.streams import Alarm
from services.observerd.store.kept import Kept
from services.observerd.store.modes import Call, Mode
from shared.errors import Conflict, LakehouseError, NotFound, RateLimited
from shared.wire.observerd_streams import (
    StreamAlarm,
    StreamFed,
    StreamFeed,
    StreamList,
    StreamReset,
    StreamSpec,
    StreamValues,
    StreamView,
)

logger = logging.getLogger("lakehouse.observerd")

# Records after which a checkpoint is written, and streams that may be watched at once.
_CHECKPOINT_RECORDS, _MOST_STREAMS = 2000, 10_000
# Below this it is the log of nothing, which JSON cannot carry.
_NO_EVIDENCE = -1e300


class Held:
    """A stream with the spec that it was declared by."""

    def __init__(self, spec: StreamSpec, stream: Stream) -> None:
        self.spec = spec
        self.stream = stream


class Streams(Kept):
    """All streams by name.

    Args:
        folder: of their journal.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("streams", folder)
        self._held: dict[str, Held] = {}
        # One change at a time: records and memory then have one order.
        self._changing = asyncio.Lock()
        self._kept = 0

    def _load(self) -> None:
        checkpoint = self._journal.latest_checkpoint()
        if checkpoint is not None:
            for name, fields in orjson.loads(b"".join(checkpoint.chunks())).items():
                spec = StreamSpec.model_validate(fields["spec"])
                self._held[name] = Held(spec, Stream.load(fields["stream"]))
        start = None if checkpoint is None else checkpoint.seq + 1
        for record in self._journal.replay(start):
            self._kept += 1
            try:
                self._fold(record.payload)
            except (KeyError, TypeError, ValueError, LakehouseError):
                # One record that cannot be read must not cost the others.
                logger.exception("Record %d of the streams cannot be read", record.seq)

    def _fold(self, payload: Mapping[str, Any]) -> list[Alarm]:
        kind, name = payload["kind"], payload["stream"]
        if kind == "declared":
            spec = StreamSpec.model_validate(payload["spec"])
            self._held[name] = Held(spec, _begin(spec))
        elif kind == "fed":
            held = self._held[name]
            held.stream, rang, _ = feed_stream(held.stream, payload["values"], payload["id"])
            return rang
        elif kind == "reset":
            held = self._held[name]
            spec = StreamSpec.model_validate(payload["spec"])
            held.spec, held.stream = (
                spec,
                reset_stream(held.stream, _begin(spec), payload["reason"]),
            )
        elif kind == "deleted":
            self._held.pop(name, None)
        else:
            raise ValueError(f"no record is of the kind {kind!r}")
        return []

    async def _keep(self, payload: dict[str, Any]) -> list[Alarm]:
        await self._journal.append(payload)
        rang = await self._pool.run(self._fold, payload)
        self._kept += 1
        if self._kept >= _CHECKPOINT_RECORDS:
            state = {
                name: {"spec": held.spec.model_dump(mode="json"), "stream": held.stream.dump()}
                for name, held in self._held.items()
            }
            try:
                await self._pool.run(
                    self._journal.compact, self._journal.last_seq, [orjson.dumps(state)]
                )
                self._kept = 0
            except LakehouseError as error:
                logger.warning("The streams' checkpoint waits: %s", error.message)
        return rang

    async def _change(self, work: Any) -> Any:
        # Whoever leaves meanwhile: what is durable must also be in memory, in the same order.
        return await asyncio.shield(asyncio.ensure_future(work))

    # --- routes

    async def declare(self, name: str, spec: StreamSpec) -> tuple[StreamView, bool]:
        """Begins to watch a stream; gives it, and whether it is new.

        Raises:
            Invalid: the spec makes no sense. Conflict: one of this name has another.
            RateLimited: there are too many streams.
        """
        await self._pool.run(_begin, spec)
        made: bool = await self._change(self._declare(name, spec))
        return self.show(name), made

    async def _declare(self, name: str, spec: StreamSpec) -> bool:
        async with self._changing:
            known = self._held.get(name)
            if known is not None and known.spec == spec:
                return False
            if known is not None:
                raise Conflict(
                    f"Stream {name!r} is watched with other settings. Reset it to hold it to "
                    "another mean, or delete it first."
                )
            if len(self._held) >= _MOST_STREAMS:
                raise RateLimited(f"{_MOST_STREAMS} streams are watched; delete some first.")
            body = spec.model_dump(mode="json")
            await self._keep({"kind": "declared", "stream": name, "spec": body})
            return True

    async def feed(self, name: str, batch: StreamValues) -> StreamFed:
        """Takes values in, durably.

        Raises:
            NotFound: no such stream. Invalid: a value lies outside the bounds; none counted.
        """
        return await self._change(self._feed(name, batch))

    async def _feed(self, name: str, batch: StreamValues) -> StreamFed:
        async with self._changing:
            stream = self._find(name).stream
            # Tried first: what cannot be folded must not be written.
            _, _, fresh = await self._pool.run(feed_stream, stream, batch.values, batch.id)
            rang: list[Alarm] = []
            if fresh:
                rang = await self._keep(
                    {"kind": "fed", "stream": name, "values": batch.values, "id": batch.id}
                )
            shown = [_show_alarm(one) for one in rang]
            return StreamFed(duplicate=not fresh, rang=shown, stream=self.show(name))

    async def reset(self, name: str, reset: StreamReset) -> StreamView:
        """Begins a stream anew.

        Raises:
            NotFound: no such stream. Invalid: the new mean makes no sense.
        """
        return await self._change(self._reset(name, reset))

    async def _reset(self, name: str, reset: StreamReset) -> StreamView:
        async with self._changing:
            spec = self._find(name).spec
            if reset.mean is not None or reset.reference is not None:
                told = reset.model_dump(exclude={"reason"})
                spec = StreamSpec.model_validate({**spec.model_dump(), **told})
            await self._pool.run(_begin, spec)
            body = spec.model_dump(mode="json")
            await self._keep(
                {"kind": "reset", "stream": name, "spec": body, "reason": reset.reason}
            )
            return self.show(name)

    async def delete(self, name: str) -> None:
        """Stops watching a stream.

        Raises:
            NotFound: no such stream.
        """
        await self._change(self._delete(name))

    async def _delete(self, name: str) -> None:
        async with self._changing:
            self._find(name)
            await self._keep({"kind": "deleted", "stream": name})

    def _find(self, name: str) -> Held:
        held = self._held.get(name)
        if held is None:
            known = ", ".join(sorted(self._held)[:20]) or "none yet"
            raise NotFound(
                f"There is no stream {name!r}; PUT /observer/drift/streams/{name} makes it. "
                f"There are: {known}."
            )
        return held

    def show(self, name: str) -> StreamView:
        """One stream.

        Raises:
            NotFound: no such stream.
        """
        stream = self._find(name).stream
        state = stream.detector
        return StreamView(
            name=name,
            status=stream.status,
            seen=state.total,
            minimum=stream.minimum,
            low_mean=state.low_mean,
            high_mean=state.high_mean,
            lowest=state.lowest,
            highest=state.highest,
            sides=state.sides,
            run_length=state.run_length,
            false_alarms_expected=state.total / state.run_length,
            evidence=state.evidence if state.evidence > _NO_EVIDENCE else None,
            evidence_needed=math.log(state.run_length),
            alarmed=stream.alarmed,
            alarms=[_show_alarm(one) for one in stream.alarms],
            resets=stream.resets,
            reset_reason=stream.reason,
        )

    def list(self) -> StreamList:
        """All streams by name."""
        return StreamList(streams=[self.show(name) for name in sorted(self._held)])

    def modes(self) -> list[Mode]:
        """What workflows can do of this."""
        return [
            Mode(
                "drift.stream",
                "Feeds values to a stream, as POST /observer/drift/streams/{name}/values does",
                StreamFeed,
                self._feed_mode,
                side_effects=True,
            )
        ]

    async def _feed_mode(self, request: StreamFeed, call: Call) -> Any:
        # The work's own key: a node that is run again after a crash counts once.
        batch = StreamValues(values=request.values, id=request.id or call.idempotency_key)
        return (await self.feed(request.stream, batch)).model_dump(mode="json")


def _begin(spec: StreamSpec) -> Stream:
    mean, size = spec.mean, spec.reference_size
    if mean is None:
        mean, size = estimate_mean(spec.reference or [])
    return open_stream(
        mean,
        lowest=spec.lowest,
        highest=spec.highest,
        reference_size=size,
        run_length=spec.run_length,
        sides=spec.sides,
        minimum=spec.minimum,
    )


def _show_alarm(alarm: Alarm) -> StreamAlarm:
    return StreamAlarm(at=alarm.at, direction=alarm.direction, evidence=alarm.evidence)
