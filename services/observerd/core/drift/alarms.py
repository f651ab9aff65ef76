"""A named stream under watch: its detector, what it is called, and what it has seen.

Below `minimum` values it says `insufficient`, never `stable`. An alarm counts whenever it comes,
because its bound holds from the first value on; the stream then stays `drifted` until someone
resets it. A batch that carries an id counts once. Pure: a stream and a batch give the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from services.observerd.core.drift.streams import (
    Alarm,
    Detector,
    Sides,
    start_detector,
    update_detector,
)
from shared.errors import Invalid

Status = Literal["insufficient", "stable", "drifted"]

# Alarms shown, and ids of batches remembered, of each stream.
_ALARMS_KEPT, _IDS_KEPT = 100, 200
# Values that a mean may be estimated from, at least.
LEAST_REFERENCE = 30


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream and its state since the last reset.

    Attributes:
        alarms: the newest ones since the reset; `alarmed` counts them all.
        ids: of the newest batches.
        resets: how often, and `reason` why the last time.
    """

    detector: Detector
    minimum: int
    alarms: tuple[Alarm, ...] = ()
    alarmed: int = 0
    ids: tuple[str, ...] = ()
    resets: int = 0
    reason: str = ""

    @property
    def status(self) -> Status:
        """What may be said of the stream."""
        if self.alarmed:
            return "drifted"
        return "insufficient" if self.detector.total < self.minimum else "stable"

    def dump(self) -> dict[str, Any]:
        """The stream as JSON can carry it; `load` reads it back."""
        return {**asdict(self), "detector": self.detector.dump()}

    @classmethod
    def load(cls, fields: dict[str, Any]) -> Stream:
        """The stream that `dump` wrote.

        Raises:
            Invalid: it is none.
        """
        try:
            detector = Detector.load(fields["detector"])
            alarms = tuple(Alarm(**one) for one in fields["alarms"])
            return cls(
                detector,
                int(fields["minimum"]),
                alarms,
                int(fields["alarmed"]),
                tuple(fields["ids"]),
                int(fields["resets"]),
                str(fields["reason"]),
            )
        except (TypeError, KeyError):
            raise Invalid("This is no state of a stream; declare it anew.") from None


def estimate_mean(values: Sequence[float]) -> tuple[float, int]:
    """Mean and number of a reference sample.

    Raises:
        Invalid: too few values to say anything.
    """
    if len(values) < LEAST_REFERENCE:
        raise Invalid(
            f"{len(values)} reference values are insufficient; give {LEAST_REFERENCE} or more, or "
            "the mean to hold to."
        )
    return math.fsum(values) / len(values), len(values)


def open_stream(
    mean: float,
    *,
    lowest: float,
    highest: float,
    reference_size: int | None,
    run_length: int,
    sides: Sides,
    minimum: int,
) -> Stream:
    """A stream that has seen nothing.

    Raises:
        Invalid: the mean does not lie within the bounds.
    """
    detector = start_detector(
        mean,
        lowest=lowest,
        highest=highest,
        reference_size=reference_size,
        run_length=run_length,
        sides=sides,
    )
    return Stream(detector, minimum)


def feed_stream(
    stream: Stream, values: Sequence[float], batch: str | None = None
) -> tuple[Stream, list[Alarm], bool]:
    """Takes a batch in; gives the stream, the alarms that rang, and whether the batch was new.

    Raises:
        Invalid: a value lies outside the bounds; then none of them counts.
    """
    if batch is not None and batch in stream.ids:
        return stream, [], False
    detector, rung = stream.detector, list[Alarm]()
    for value in values:
        detector, alarm = update_detector(detector, value)
        if alarm is not None:
            rung.append(alarm)
    ids = stream.ids if batch is None else (*stream.ids, batch)[-_IDS_KEPT:]
    found = replace(
        stream,
        detector=detector,
        alarms=(*stream.alarms, *rung)[-_ALARMS_KEPT:],
        alarmed=stream.alarmed + len(rung),
        ids=ids,
    )
    return found, rung, True


def reset_stream(stream: Stream, fresh: Stream, reason: str) -> Stream:
    """The stream begun anew as `fresh`, remembering which batches it has had."""
    return replace(fresh, ids=stream.ids, resets=stream.resets + 1, reason=reason)
