"""A query put to many corpora at once: what each gives, or why it gives nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.matrixd.core.candidates import Found, collapse
from services.matrixd.core.corpora import combine
from services.matrixd.store.corpus import Corpus
from services.matrixd.store.figures import Figures
from services.matrixd.store.peers import Peers, tell
from services.matrixd.store.registry import Registry
from shared.errors import Invalid, LakehouseError, NotFound, Unavailable
from shared.filters.language import parse_filter
from shared.sections.matrix import MatrixdSection
from shared.wire.matrixd import CorpusAnswer, Tuning
from shared.wire.vectord import Candidates, Include, Query

if TYPE_CHECKING:
    from services.matrixd.store.ranking import Part

# Items looked at in one corpus, at most, where more are needed than usual.
_MOST = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """A corpus's answer to a query, and how it was searched.

    `model`, `dim` and `chunked` are those of the index when it was asked: a rebuild may change
    the corpus' own while its answer is on the way.
    """

    corpus: Corpus
    model: str
    dim: int
    chunked: bool
    answer: Candidates
    found: Sequence[Found]
    tuning: Tuning


@dataclass(slots=True)
class Gathered:
    """All answers: by model those that came, by name how each corpus took part."""

    vectors: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    asked: dict[str, list[Asked]] = field(default_factory=dict[str, list[Asked]])
    answers: dict[str, CorpusAnswer] = field(default_factory=dict[str, CorpusAnswer])


class Gatherer:
    """Embeds a query once a model and asks each corpus's index for its candidates."""

    def __init__(
        self, section: MatrixdSection, registry: Registry, peers: Peers, figures: Figures
    ) -> None:
        self._section = section
        self._registry = registry
        self._peers = peers
        self._figures = figures

    def choose(self, names: Sequence[str] | None) -> list[str]:
        """The corpora meant, each once, in order; all of them when none is named.

        Raises:
            Invalid: too many. NotFound: there is no corpus yet.
        """
        chosen = list(dict.fromkeys(self._registry.names() if names is None else names))
        if not chosen:
            raise NotFound("There is no corpus yet. Make one with POST /matrix/corpora.")
        if len(chosen) > self._section.max_corpora:
            raise Invalid(
                f"{len(chosen)} corpora; at most {self._section.max_corpora} are searched at once. "
                "Name those that matter in corpora.",
                details={"limit": self._section.max_corpora},
            )
        return chosen

    async def gather(
        self,
        query: str,
        names: Sequence[str],
        filters: dict[str, Any] | None,
        include: Sequence[Include],
        tuning: Tuning | None = None,
        k: int = 0,
    ) -> Gathered:
        """What each corpus has for a query.

        Args:
            names: corpora, as of `choose`.
            include: what is wanted of each candidate beside its scores.
            tuning: counts before that of each corpus.
            k: how many documents each should give if it has them and is not tuned to fewer.

        Raises:
            Invalid: the filter. NotFound: none of the corpora exists.
            Unavailable: not one of them could be searched.
        """
        if not query.strip():
            raise Invalid("The query is blank. Say what is looked for.")
        if filters is not None:
            parse_filter(filters)
        gathered = Gathered()
        corpora: dict[str, list[Corpus]] = {}
        for name in names:
            corpus = self._registry.get(name)
            if corpus is None:
                gathered.answers[name] = CorpusAnswer(
                    status="unknown", reason=f"There is no corpus {name!r}."
                )
            elif not corpus.state.model:
                gathered.answers[name] = _unavailable("Its build has not begun to fill it yet.")
            else:
                corpora.setdefault(corpus.state.model, []).append(corpus)
        embedded = await asyncio.gather(*(self._embed(query, model) for model in corpora))
        askable: list[tuple[Corpus, str]] = []
        for (model, some), result in zip(corpora.items(), embedded, strict=True):
            if isinstance(result, CorpusAnswer):
                gathered.answers.update((corpus.spec.name, result) for corpus in some)
            else:
                gathered.vectors[model] = result
                askable += [(corpus, model) for corpus in some]
        results = await asyncio.gather(
            *(
                self._ask(c, query, model, gathered.vectors[model], filters, include, tuning, k)
                for c, model in askable
            )
        )
        for (corpus, model), result in zip(askable, results, strict=True):
            if isinstance(result, CorpusAnswer):
                gathered.answers[corpus.spec.name] = result
                continue
            gathered.asked.setdefault(model, []).append(result)
            gathered.answers[corpus.spec.name] = CorpusAnswer(
                status="ok" if corpus.state.built else "building", candidates=len(result.found)
            )
        dead = [a for a in gathered.answers.values() if a.status in ("unknown", "unavailable")]
        self._figures.dead_corpora.inc(len(dead))
        if not gathered.asked:
            raise _all_dead(gathered.answers)
        # In the order asked for.
        gathered.answers = {name: gathered.answers[name] for name in names}
        return gathered

    async def _embed(self, query: str, model: str) -> list[float] | CorpusAnswer:
        """The query's vector, or what its corpora answer when there is none."""
        try:
            async with asyncio.timeout(self._section.corpus_timeout_s):
                return (await self._peers.embedd.embed([query], model)).vectors[0]
        except TimeoutError:
            limit = self._section.corpus_timeout_s
            return _unavailable(f"embedd gave no vector of {model} within {limit:g} s.")
        except LakehouseError as error:
            return _unavailable(tell(error))

    async def _ask(
        self,
        corpus: Corpus,
        query: str,
        model: str,
        vector: list[float],
        filters: dict[str, Any] | None,
        include: Sequence[Include],
        tuning: Tuning | None,
        k: int,
    ) -> Asked | CorpusAnswer:
        tuned = combine(corpus.state.tuning, tuning)
        dim, chunked = corpus.state.dim, corpus.chunked
        count = tuned.candidates or max(self._section.candidates, k)
        try:
            async with asyncio.timeout(self._section.corpus_timeout_s):
                while True:
                    ask = Query(
                        vector=vector,
                        text=query,
                        k=count,
                        filter=filters,
                        include=list(include),
                    )
                    answer = await self._peers.vectord.find_candidates(
                        corpus.index, [ask], model=model
                    )
                    found = answer.results[0]
                    collapsed = collapse(found.ids, found.dense, found.lexical, chunked)
                    short = len(collapsed) < k and len(found.ids) >= count
                    if not short or tuned.candidates or count >= _MOST:
                        return Asked(corpus, model, dim, chunked, found, collapsed, tuned)
                    # The nearest items are chunks of few documents.
                    count = min(4 * count, _MOST)
        except TimeoutError:
            limit = self._section.corpus_timeout_s
            return _unavailable(f"No answer within {limit:g} s.")
        except LakehouseError as error:
            # The caller's own mistakes were found before; what is refused here, like a vector
            # of the model that the index had until now, is this corpus' trouble.
            return _unavailable(tell(error))


def to_parts(asked: Sequence[Asked], make: type[Part]) -> list[Part]:
    """Answers as the ranking takes them."""
    return [
        make(
            one.corpus.spec.name,
            one.chunked,
            one.dim,
            one.corpus.state.calibration,
            one.answer,
            one.found,
            one.tuning.lexical,
        )
        for one in asked
    ]


def _unavailable(reason: str) -> CorpusAnswer:
    return CorpusAnswer(status="unavailable", reason=reason)


def _all_dead(answers: dict[str, CorpusAnswer]) -> LakehouseError:
    told = {name: answer.model_dump(exclude_none=True) for name, answer in answers.items()}
    if all(answer.status == "unknown" for answer in answers.values()):
        return NotFound(
            f"None of these corpora exists: {', '.join(answers)}. GET /matrix/corpora lists them.",
            details={"corpora": told},
        )
    reasons = "; ".join(f"{name}: {answer.reason}" for name, answer in answers.items())
    return Unavailable(
        f"None of the corpora can be searched now: {reasons}", details={"corpora": told}
    )
