"""Reading what a scorer sent, a model's above all: whole and valid, or a review.

Nothing is repaired: no clamp, no default, no middle value, no verdict guessed from prose. The
one leniency is a code fence round the JSON, which says nothing about its content.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from services.observerd.core.distill.scores import (
    VERDICTS,
    Response,
    Score,
    ScorerStatus,
)
from shared.errors import Invalid, LakehouseError, Timeout

# Score that a verdict must lie in; a verdict that its own number denies is no verdict.
RANGES: Mapping[str, tuple[float, float]] = {
    "accepted": (0.5, 1.0),
    "partially_accepted": (0.2, 0.8),
    "rejected": (0.0, 0.5),
    "needs_human_review": (0.0, 1.0),
}
# Ways in which a provider says that it stopped before the end.
CUT_SHORT = frozenset({"length", "max_tokens", "content_filter", "error", "cancelled"})
MAX_REPLY = 65_536
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


class _Refused(Exception):
    def __init__(self, status: ScorerStatus, why: str) -> None:
        super().__init__(why)
        self.status: ScorerStatus = status
        self.why = why


def read_reply(
    text: str | bytes | None,
    *,
    run_id: str,
    scorer: str,
    offered: Collection[str],
    finish_reason: str | None = "stop",
) -> Score:
    """The score that a scorer's reply amounts to. Never raises on any reply.

    The reply is a JSON object: {run_id, verdict, score, reasons: […], evidence: […]}, where
    run_id may be left out.
    """
    try:
        response = _parse(text, run_id, offered, finish_reason)
    except _Refused as refused:
        return Score(run_id, scorer, refused.status, failure=refused.why)
    return Score(run_id, scorer, "ok", response)


def score_failure(error: BaseException, *, run_id: str, scorer: str) -> Score:
    """The score of a scorer that raised instead of answering."""
    timed_out = isinstance(error, TimeoutError | Timeout)
    said = error.message if isinstance(error, LakehouseError) else type(error).__name__
    return Score(run_id, scorer, "timeout" if timed_out else "error", failure=f"scorer: {said}")


def score_safely(judge: Callable[[], Response], *, run_id: str, scorer: str) -> Score:
    """Runs a scorer that is a function; whatever it raises becomes a review."""
    try:
        response = judge()
        return Score(run_id, scorer, "ok", response)
    except Exception as error:
        return score_failure(error, run_id=run_id, scorer=scorer)


def _parse(
    text: str | bytes | None, run_id: str, offered: Collection[str], finish_reason: str | None
) -> Response:
    if finish_reason is None or finish_reason in CUT_SHORT:
        raise _Refused("partial", f"the reply was cut short ({finish_reason or 'no end'})")
    if text is None or not text.strip():
        raise _Refused("unparseable", "the reply is empty")
    if len(text) > MAX_REPLY:
        raise _Refused("unparseable", f"the reply is longer than {MAX_REPLY}")
    fields = _read_object(text)
    said = fields.get("run_id", run_id)
    if said != run_id:
        raise _Refused("unparseable", "the reply is about another run")
    missing = [name for name in ("verdict", "score", "reasons", "evidence") if name not in fields]
    if missing:
        raise _Refused("partial", f"the reply lacks {', '.join(missing)}")
    verdict, score = fields["verdict"], fields["score"]
    if verdict not in VERDICTS:
        raise _Refused("out_of_range", "the verdict is none of the four")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise _Refused("unparseable", "the score is not a number")
    if not math.isfinite(score) or not 0 <= score <= 1:
        raise _Refused("out_of_range", "the score is outside 0 to 1")
    lowest, highest = RANGES[verdict]
    if not lowest <= score <= highest:
        raise _Refused("out_of_range", f"verdict and score contradict each other ({score:g})")
    reasons, evidence = _strings(fields, "reasons"), _strings(fields, "evidence")
    if not set(evidence) <= set(offered):
        raise _Refused("out_of_range", "the evidence named is none of what was shown")
    if len(set(evidence)) < len(evidence):
        raise _Refused("out_of_range", "evidence is named twice")
    try:
        return Response(run_id, verdict, float(score), reasons, evidence, frozenset(offered))
    except Invalid as error:
        raise _Refused("partial", error.message) from None


def _read_object(text: str | bytes) -> dict[str, Any]:
    try:
        whole = text if isinstance(text, str) else text.decode("utf-8")
        fenced = _FENCE.match(whole)
        found: Any = json.loads(fenced.group(1) if fenced else whole, object_pairs_hook=_read_pairs)
    except RecursionError:
        raise _Refused("unparseable", "the reply nests too deeply") from None
    except ValueError:
        raise _Refused("unparseable", "the reply is not JSON") from None
    if not isinstance(found, dict):
        raise _Refused("unparseable", "the reply is not a JSON object")
    return cast("dict[str, Any]", found)


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Two verdicts in one reply: whichever came last would win by accident.
        raise _Refused("unparseable", "the reply names a field twice")
    return found


def _strings(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields[name]
    if not isinstance(value, list) or not all(
        isinstance(one, str) for one in cast("list[Any]", value)
    ):
        raise _Refused("unparseable", f"{name} is not a list of strings")
    return tuple(cast("list[str]", value))
