"""Composing context: the gate, then search, then relevance, then the budget."""

from __future__ import annotations

from collections.abc import Sequence

from services.matrixd.core.compose import Piece, compose
from services.matrixd.core.downgrade import ISOLATED, decide_mode
from services.matrixd.store.relevance import RelevanceFilter
from services.matrixd.store.search import Searcher
from shared.errors import Invalid
from shared.sections.matrix import ModelsSection
from shared.wire.matrixd import MatrixAnswer, MatrixSearch, PlaybookAnswer
from shared.wire.matrixd_context import (
    Composed,
    ComposeRequest,
    Downgraded,
    DowngradeRequest,
    LeftOut,
)


class Composer:
    """Decides the mode, and makes the messages."""

    def __init__(
        self, models: ModelsSection, searcher: Searcher, relevance: RelevanceFilter
    ) -> None:
        self._weak = models.weak_models
        self._tiers = models.tiers()
        self._searcher = searcher
        self._relevance = relevance

    def downgrade(self, request: DowngradeRequest) -> Downgraded:
        """The mode that a model should be asked in.

        Raises:
            Invalid: the mode or the tier.
        """
        return decide_mode(
            request.mode,
            request.model,
            force=request.force,
            weak_models=self._weak,
            tiers=self._tiers,
        )

    async def compose(self, request: ComposeRequest) -> Composed:
        """The messages for a query; a strong model gets the query alone.

        Raises:
            Unprocessable: not even the query fits the budget.
            Invalid: the query is blank.
            Invalid, NotFound, Unavailable: as of a search.
        """
        if not request.query.strip():
            raise Invalid("The query is blank. Say what the model is asked.")
        gate = self.downgrade(
            DowngradeRequest(mode=request.mode, model=request.model, force=request.force)
        )
        isolated = gate.mode == ISOLATED
        found = MatrixAnswer(hits=[], corpora={}, playbook=PlaybookAnswer())
        pieces: Sequence[Piece] = ()
        left: list[LeftOut] = []
        if not isolated:
            found = await self._searcher.search(
                MatrixSearch(
                    query=request.query,
                    corpora=request.corpora,
                    k=request.k,
                    filters=request.filters,
                    use_playbook=request.use_playbook,
                )
            )
            pieces, left = await self._keep_relevant(request, found)
        context = compose(
            request.query, pieces, request.token_budget, system=request.system, isolated=isolated
        )
        return Composed(
            messages=context.messages,
            citations=context.citations,
            left_out=[*context.left_out, *left],
            mode=gate.mode,
            downgraded=gate.downgraded,
            reason=gate.reason,
            tokens=context.tokens,
            token_budget=request.token_budget,
            corpora=found.corpora,
            playbook=found.playbook,
        )

    async def _keep_relevant(
        self, request: ComposeRequest, found: MatrixAnswer
    ) -> tuple[list[Piece], list[LeftOut]]:
        asked = [text for text in (request.query, request.focus) if text and text.strip()]
        verdicts = await self._relevance.judge(asked, [hit.text or "" for hit in found.hits], 0.5)
        pieces: list[Piece] = []
        left: list[LeftOut] = []
        for hit, verdict in zip(found.hits, verdicts, strict=True):
            if verdict is None:
                left.append(LeftOut(corpus=hit.corpus, id=hit.id, reason="has no text"))
            elif not verdict.kept:
                left.append(LeftOut(corpus=hit.corpus, id=hit.id, reason=verdict.reason))
            else:
                pieces.append(Piece(hit.corpus, hit.id, hit.text or "", hit.score, hit.chunk))
        return pieces, left
