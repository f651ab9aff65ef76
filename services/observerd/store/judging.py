"""Judging answers and testing for drift: what the cores decide, with vectors and threads.

ADR-005: whatever keeps the scorer from a whole answer makes the run one for human review.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from services.observerd.core.distill.agreeing import drop_question
from services.observerd.core.distill.canonical import hash_json
from services.observerd.core.distill.replies import score_failure
from services.observerd.core.distill.scorer import (
    SCORER,
    Case,
    Text,
    judge_answer,
    measure_similarities,
)
from services.observerd.core.distill.scores import Score
from services.observerd.core.distill.words import normalise_words
from services.observerd.core.events.letters import name_letter
from services.observerd.store.letters import Letters
from services.observerd.store.modes import Call, Mode
from shared import context
from shared.clients.embedd import EmbeddClient
from shared.clients.matrixd import MatrixdClient
from shared.errors import Invalid, LakehouseError, NotFound, Timeout, Unavailable
from shared.pool import BlockingPool
from shared.wire.matrixd import MatrixSearch
from shared.wire.observerd import Event
from shared.wire.observerd_judging import (
    DriftAnswer,
    DriftRequest,
    Scored,
    ScorerDriftAnswer,
    ScorerDriftRequest,
    ScoreRequest,
)

logger = logging.getLogger("lakehouse.observerd")

# Permutation tests of large samples take seconds of one core: one at a time, a few waiting.
_AT_ONCE, _QUEUE = 1, 16
# Documents that each search brings to a judgement, and the longest text to search with.
_FOUND, _QUERY_CHARS = 10, 2000
# Waits before another try of a scoring that failed; a timeout is not tried again.
_RETRIES_S = (0.1, 0.3)


class _Senseless(Exception):
    """The request itself is at fault, and its caller must hear so."""

    def __init__(self, why: LakehouseError) -> None:
        super().__init__(why.message)
        self.why = why


class Judging:
    """The deterministic scorer, and the tests for drift.

    Args:
        embedd: gives the vectors that answers are compared by.
        matrixd: searches the corpora that a request names.
        letters: keeps what could not be judged.
        record: makes events durable; a replayed verdict is one.
    """

    def __init__(
        self,
        embedd: EmbeddClient,
        matrixd: MatrixdClient,
        letters: Letters,
        record: Callable[[Sequence[Event]], Awaitable[object]],
    ) -> None:
        self._letters = letters
        self._record = record
        letters.handle("score", self._rescore)
        self._embedd = embedd
        self._matrixd = matrixd
        self._pool = BlockingPool("observerd-drift", _AT_ONCE, _QUEUE)

    def close(self) -> None:
        """Waits for what is running."""
        self._pool.close()

    async def score(self, request: ScoreRequest) -> Scored:
        """The verdict on an answer; never an error once the request makes sense.

        What fails is tried again, then kept as a dead letter that the answer names.

        Raises:
            NotFound, Invalid: the corpora named are none.
        """
        found = await self._judge(request)
        for delay in _RETRIES_S:
            if found.scorer_status != "error":
                break
            await asyncio.sleep(delay)
            found = await self._judge(request)
        shown = Scored.model_validate(found.dump())
        work, key = _describe(request)
        if found.scorer_status == "ok":
            await self._letters.settle("score", key, shown.model_dump(mode="json"))
            return shown
        why = (found.scorer_status, "; ".join(found.reasons))
        kept = await self._letters.keep("score", key, request.run_id, work, why)
        return shown.model_copy(update={"letter": kept})

    async def _rescore(self, work: Mapping[str, Any]) -> Any:
        """A letter's work: judged again, and its verdict recorded under the letter's own id."""
        request = ScoreRequest.model_validate(work)
        found = await self._judge(request)
        if found.scorer_status != "ok":
            failure = Timeout if found.scorer_status == "timeout" else Unavailable
            raise failure("; ".join(found.reasons))
        shown = Scored.model_validate(found.dump()).model_dump(mode="json")
        _, key = _describe(request)
        event = Event(
            id=f"letter:{name_letter('score', *key)}",
            run_id=request.run_id,
            node_id="distillation.score",
            mode="distillation.score",
            service="observerd",
            status="ok",
            verdict=found.verdict,
            scorer_status="ok",
            score=found.score,
            evidence=list(found.evidence),
            attributes={"scorer": found.scorer, "replayed": True},
        )
        await self._record([event])
        return shown

    async def _judge(self, request: ScoreRequest) -> Score:
        try:
            case = await self._gather(request)
            # An empty answer has no vector and needs none to be rejected.
            answer = case.answer if case.answer.strip() else case.question
            evidence, references, neighbours = (
                [one.text for one in texts]
                for texts in (case.evidence, case.references, case.neighbours)
            )
            rest = [drop_question(case.question, answer)] if neighbours else []
            shown = [*evidence, *references, *neighbours, *rest]
            found = (await self._embedd.embed([case.question, answer, *shown])).vectors
            first = 2 + len(evidence)
            second = first + len(references)
            third = second + len(neighbours)
            near = measure_similarities(
                found[0],
                found[1],
                found[2:first],
                found[first:second],
                found[second:third],
                found[third] if rest else None,
            )
            return Score(case.run_id, SCORER, "ok", judge_answer(case, near))
        except _Senseless as error:
            raise error.why from None
        except Exception as error:
            if not isinstance(error, LakehouseError):
                logger.exception("Run %s could not be judged", request.run_id)
            return score_failure(error, run_id=request.run_id, scorer=SCORER)

    async def _gather(self, request: ScoreRequest) -> Case:
        """The case, with what the named corpora hold of its question and its answer."""
        evidence = [Text(one.id, one.text) for one in request.evidence]
        neighbours = [Text(one.id, one.text) for one in request.neighbours]
        if request.corpora and not evidence:
            evidence = await self._search(request.corpora, request.question, request.answer)
        if request.corpora and not neighbours and request.answer.strip():
            neighbours = await self._search(request.corpora, request.answer, request.answer)
        return Case(
            request.run_id,
            request.question,
            request.answer,
            tuple(evidence),
            tuple(Text(one.id, one.text) for one in request.references),
            tuple(neighbours),
        )

    async def _search(self, corpora: list[str], query: str, answer: str) -> list[Text]:
        asked = MatrixSearch(query=query[:_QUERY_CHARS], corpora=corpora, k=_FOUND + 4)
        # Under a name of its own: the judge's searches are none of the run that it judges.
        outer = context.request_id.set(f"judge-{context.request_id.get()}"[:128])
        try:
            hits = (await self._matrixd.search(asked)).hits
        except (NotFound, Invalid) as error:
            raise _Senseless(error) from None
        finally:
            context.request_id.reset(outer)
        itself = normalise_words(answer)
        return [
            Text(f"{hit.corpus}/{hit.id}", hit.text)
            for hit in hits
            if hit.text and normalise_words(hit.text) != itself
        ][:_FOUND]

    async def compare(self, request: DriftRequest) -> DriftAnswer:
        """Whether two samples differ by more than chance.

        Raises:
            Invalid: a value is not of its feature's kind.
        """
        return DriftAnswer.model_validate(await self._pool.run(_compare, request))

    async def check_scorer(self, request: ScorerDriftRequest) -> ScorerDriftAnswer:
        """Whether the scorer drifted, or what it scores.

        Raises:
            Invalid: two anchors have one id.
        """
        return ScorerDriftAnswer.model_validate(await self._pool.run(_check_scorer, request))

    def modes(self) -> list[Mode]:
        """What workflows can do of this."""
        return [
            Mode(
                "distillation.score",
                "Judges an answer against its evidence, as POST /observer/distillation/score does",
                ScoreRequest,
                self._score_mode,
            ),
            Mode(
                "drift.scorer",
                "Whether the scorer drifted, as POST /observer/drift/scorer says",
                ScorerDriftRequest,
                self._drift_mode,
            ),
        ]

    async def _score_mode(self, request: ScoreRequest, _: Call) -> Any:
        return (await self.score(request)).model_dump(mode="json")

    async def _drift_mode(self, request: ScorerDriftRequest, _: Call) -> Any:
        return (await self.check_scorer(request)).model_dump(mode="json")


def _describe(request: ScoreRequest) -> tuple[dict[str, Any], tuple[str, str]]:
    """The request as JSON, and what makes two of them the same work."""
    work = request.model_dump(mode="json", exclude_defaults=True)
    return work, (request.run_id, hash_json(work))


def _compare(request: DriftRequest) -> dict[str, Any]:
    # numpy comes with the first test, so that a daemon that tests nothing stays small.
    numpy: Any = importlib.import_module("numpy")
    core: Any = importlib.import_module("services.observerd.core.drift.distributions")
    report = core.compare_samples(
        [core.Row(one.session, one.values) for one in request.reference],
        [core.Row(one.session, one.values) for one in request.current],
        request.kinds,
        numpy.random.default_rng(request.seed),
        alpha=request.alpha,
        correction=request.correction,
        min_sessions=request.min_sessions,
    )
    return dataclasses.asdict(report)


def _check_scorer(request: ScorerDriftRequest) -> dict[str, Any]:
    numpy: Any = importlib.import_module("numpy")
    core: Any = importlib.import_module("services.observerd.core.drift.anchors")
    found = core.judge_scorer(
        [core.AnchorScore(**one.model_dump()) for one in request.anchors],
        numpy.random.default_rng(request.seed),
        live_before=[(one.session, one.verdict) for one in request.live_before],
        live_now=[(one.session, one.verdict) for one in request.live_now],
        deterministic=request.deterministic,
        alpha=request.alpha,
        min_anchors=request.min_anchors,
        min_sessions=request.min_sessions,
    )
    return dataclasses.asdict(found)
