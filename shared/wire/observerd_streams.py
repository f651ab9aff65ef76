"""observerd: alarms on streams of values."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from shared.wire.base import Request, Response

STREAM = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$"
Status = Literal["insufficient", "stable", "drifted"]


class StreamSpec(Request):
    """A stream whose mean is watched: known (`mean`), or estimated from `reference` values.

    `reference_size` says of how many values a given mean is the average; without it the mean is
    the one to hold to. While it stays what it was, at least `run_length` values pass on average
    before a false alarm. Values lie from `lowest` to `highest`, one a session.
    """

    mean: FiniteFloat | None = None
    reference: list[FiniteFloat] | None = Field(default=None, max_length=200_000)
    reference_size: int | None = Field(default=None, ge=1, le=10**9)
    lowest: float = Field(default=0.0, ge=-1e12, le=1e12)
    highest: float = Field(default=1.0, ge=-1e12, le=1e12)
    run_length: int = Field(default=10_000, ge=2, le=10**9)
    sides: Literal["both", "up", "down"] = "both"
    minimum: int = Field(default=30, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _one_mean(self) -> StreamSpec:
        if (self.mean is None) == (self.reference is None):
            raise ValueError("give either mean or reference")
        return self


class StreamValues(Request):
    """Values in the order in which they came. A batch with an `id` counts once."""

    values: list[FiniteFloat] = Field(min_length=1, max_length=10_000)
    id: str | None = Field(default=None, min_length=1, max_length=200)


class StreamFeed(StreamValues):
    """A batch for a named stream, as a node of a workflow gives it."""

    stream: str = Field(pattern=STREAM)


class StreamReset(Request):
    """Why the stream begins anew; with `mean` or `reference` it is held to another mean."""

    reason: str = Field(min_length=1, max_length=1000)
    mean: FiniteFloat | None = None
    reference: list[FiniteFloat] | None = Field(default=None, max_length=200_000)
    reference_size: int | None = Field(default=None, ge=1, le=10**9)

    @model_validator(mode="after")
    def _one_mean(self) -> StreamReset:
        if self.mean is not None and self.reference is not None:
            raise ValueError("give mean or reference, not both")
        if self.reference_size is not None and self.mean is None:
            raise ValueError("reference_size goes with mean")
        return self


class StreamAlarm(Response):
    """An alarm: at which value (counted from the last reset), which way, how strong."""

    at: int
    direction: Literal["up", "down"]
    evidence: float


class StreamView(Response):
    """A stream: `drifted` from an alarm to a reset, `insufficient` below `minimum` values.

    `seen` counts values since the reset. `evidence` reaches `evidence_needed`, the log of
    `run_length`, when the alarm rings; `false_alarms_expected` is the most that as many values
    give on average without any change. `low_mean` and `high_mean` bound what counts as unchanged.
    """

    name: str
    status: Status
    seen: int
    minimum: int
    low_mean: float
    high_mean: float
    lowest: float
    highest: float
    sides: Literal["both", "up", "down"]
    run_length: int
    false_alarms_expected: float
    evidence: float | None
    evidence_needed: float
    alarmed: int
    alarms: list[StreamAlarm]
    resets: int
    reset_reason: str


class StreamFed(Response):
    """What a batch did: the alarms that rang in it. `duplicate`: it had been counted before."""

    duplicate: bool
    rang: list[StreamAlarm]
    stream: StreamView


class StreamList(Response):
    """All streams by name."""

    streams: list[StreamView]
