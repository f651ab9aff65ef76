"""All traces as the log's records make them. Pure: records in, traces out.

Applying a record that was applied before changes nothing, so a checkpoint may be newer than
the record that it says it covers.
"""

from __future__ import annotations

from collections import OrderedDict

from services.pathwayd.core.records import Key, Retire, Write
from services.pathwayd.core.traces import Trace


class State:
    """The traces by id, and what finds them.

    Args:
        keys_kept: Idempotency-Keys that are remembered; the oldest go first.
    """

    def __init__(self, keys_kept: int) -> None:
        self.traces: dict[str, Trace] = {}
        # Ids by their last change, oldest first.
        self.order: OrderedDict[str, None] = OrderedDict()
        # Live traces by the digest of their content; few have one that others have too.
        self._by_digest: dict[bytes, str | dict[str, None]] = {}
        self.keys: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self.counts = {"live": 0, "superseded": 0, "retired": 0}
        # Records that spoke of traces that no record made.
        self.orphans = 0
        self._keys_kept = keys_kept

    def get(self, trace_id: str) -> Trace | None:
        """The trace of this id, whatever its status."""
        return self.traces.get(trace_id)

    def write(self, seq: int, change: Write) -> list[Trace]:
        """Applies a version of a trace; gives the traces that changed."""
        if change.key is not None:
            self.remember(change.key, change.id)
        known = self.traces.get(change.id)
        if known is not None and (seq <= known.seq or change.version <= known.version):
            return []
        earlier = known.seqs if known else ()
        # Versions whose records are lost.
        earlier += (0,) * (change.version - 1 - len(earlier))
        trace = Trace(
            id=change.id,
            surface=change.surface,
            version=change.version,
            content=change.content,
            digest=change.digest,
            tags=change.tags,
            text=change.text,
            created=known.created if known else change.created,
            updated=change.at,
            supersedes=change.supersedes,
            superseded_by=known.superseded_by if known else None,
            retired=known.retired if known else None,
            reason=known.reason if known else None,
            seqs=(*earlier[: change.version - 1], seq),
            seq=seq,
        )
        changed = [trace]
        self.put(trace)
        if known is None and change.supersedes is not None:
            before = self.traces.get(change.supersedes)
            if before is None:
                self.orphans += 1
            elif before.superseded_by is None:
                # Its own seq stays: what made it so is a record of the other trace.
                changed.append(before._replace(superseded_by=change.id))
                self.put(changed[-1])
        return changed

    def retire(self, seq: int, change: Retire) -> list[Trace]:
        """Applies a retirement; gives the traces that changed."""
        changed: list[Trace] = []
        for name in change.ids:
            known = self.traces.get(name)
            if known is None:
                self.orphans += 1
            elif known.retired is None and seq > known.seq:
                trace = known._replace(retired=change.at, reason=change.reason, seq=seq)
                self.put(trace)
                changed.append(trace)
        return changed

    def put(self, trace: Trace) -> None:
        """Takes a trace in place of the one of its id."""
        before = self.traces.get(trace.id)
        if before is not None:
            self.counts[before.status] -= 1
            self._forget_content(before)
        self.traces[trace.id] = trace
        if before is None:
            self.order[trace.id] = None
        elif before.seq != trace.seq:
            self.order.move_to_end(trace.id)
        status = trace.status
        self.counts[status] += 1
        if status == "live":
            same = self._by_digest.setdefault(trace.digest, trace.id)
            if isinstance(same, dict):
                same[trace.id] = None
            elif same != trace.id:
                self._by_digest[trace.digest] = {same: None, trace.id: None}

    def find_content(self, digest: bytes) -> Trace | None:
        """The oldest live trace with a content."""
        same = self._by_digest.get(digest)
        if same is None:
            return None
        return self.traces[same if isinstance(same, str) else next(iter(same))]

    def _forget_content(self, trace: Trace) -> None:
        same = self._by_digest.get(trace.digest)
        if isinstance(same, dict):
            same.pop(trace.id, None)
        if same in (trace.id, {}):
            del self._by_digest[trace.digest]

    def remember(self, key: Key, trace_id: str) -> None:
        """Keeps what a key was used for."""
        self.keys[key.name] = (key.digest, trace_id)
        while len(self.keys) > self._keys_kept:
            self.keys.popitem(last=False)
