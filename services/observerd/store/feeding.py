"""Accepted runs into the playbook: decided by the core, recorded by matrixd, then observed.

Recording comes first, the event that tells of it second, the answer last, and each may be
repeated: matrixd knows an episode by the run's key, the log knows an event by its id. So a
feed that broke off anywhere is simply sent again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from services.observerd.core.distill.canonical import hash_json
from services.observerd.core.distill.export import Run
from services.observerd.core.distill.scores import (
    Coverage,
    count_coverage,
    load_score,
    require_coverage,
)
from services.observerd.core.events.letters import is_worth_keeping
from services.observerd.core.feeding.deciding import (
    Episode,
    Offered,
    Withheld,
    decide_feed,
    describe_refs,
    name_source,
)
from services.observerd.core.feeding.searches import Search, find_search
from services.observerd.store.events import EventLog
from services.observerd.store.firewalling import read_pairs, show_hit
from services.observerd.store.letters import Letters
from shared.clients.matrixd import MatrixdClient
from shared.errors import Conflict, Invalid, LakehouseError, Unprocessable
from shared.pool import BlockingPool
from shared.wire.matrixd_playbook import RatedDocument, RecordRequest, RetireRequest
from shared.wire.observerd import Event
from shared.wire.observerd_feed import Fed, FeedAnswer, FeedRequest, FeedRun, NotFed

MODE = "distillation.feed"
# Events of one run that are looked through for its search.
_RUN_EVENTS = 1000
# Kept of a run for audits: characters of a text and pieces of evidence, so that its event
# stays far under the log's limit for one.
_KEPT_TEXT, _KEPT_EVIDENCE = 8000, 8
# Events handed to the log at once.
_BATCH = 200


class Feeding:
    """Feeds the playbook.

    Args:
        log: where searches are found and what became of each run is told.
        matrixd: keeps the playbook.
        letters: keeps feeds that matrixd broke off.
    """

    def __init__(self, log: EventLog, matrixd: MatrixdClient, letters: Letters) -> None:
        self._letters = letters
        letters.handle("feed", self._refeed)
        self._log = log
        self._matrixd = matrixd
        self._pool = BlockingPool("observerd-feed", 1, 16)

    def close(self) -> None:
        """Waits for what is running."""
        self._pool.close()

    async def feed(self, request: FeedRequest) -> FeedAnswer:
        """Records what may be recorded; says of every run what became of it.

        Raises:
            Invalid: a score is none, or two runs have one id.
            PreconditionFailed: too few of the runs were scored; nothing was recorded.
            Unavailable, Timeout, Upstream: matrixd broke off; what it had is not recorded twice.
                The feed waits as a dead letter, which the error's details name.
        """
        work = request.model_dump(mode="json", exclude_defaults=True)
        key = (hash_json(work),)
        try:
            found = await self._feed(request)
        except LakehouseError as error:
            if is_worth_keeping(error):
                first = request.runs[0].id if request.runs else ""
                error.details["letter"] = await self._letters.keep("feed", key, first, work, error)
            raise
        await self._letters.settle("feed", key, found.model_dump(mode="json"))
        return found

    async def _refeed(self, work: Mapping[str, Any]) -> Any:
        """A letter's work; what had been recorded is not recorded twice."""
        return (await self._feed(FeedRequest.model_validate(work))).model_dump(mode="json")

    async def _feed(self, request: FeedRequest) -> FeedAnswer:
        offered = [await self._offer(run) for run in request.runs]
        episodes, held_back = await self._pool.run(_decide, offered, request)
        coverage = _measure_coverage(offered)
        require_coverage(coverage, request.coverage_floor)
        recorded: list[Fed] = []
        withheld: list[NotFed] = []
        for episode in episodes:
            for done in await self._record(episode):
                if isinstance(done, Fed):
                    recorded.append(done)
                else:
                    withheld.append(done)
        by_run = {one.run.id: one for one in offered}
        for one in held_back:
            withheld.append(await self._withhold(by_run[one.run], one, request.label))
        tainted = {one.run for one in held_back if one.tainted}
        await self._tell(request.runs, offered, [*recorded, *withheld], tainted)
        return FeedAnswer(
            recorded=recorded,
            withheld=withheld,
            reasons=dict(sorted(Counter(one.reason for one in withheld).items())),
            runs=coverage.runs,
            scored=coverage.scored,
            coverage=coverage.coverage,
        )

    async def _offer(self, run: FeedRun) -> Offered:
        given = run.search
        if given is not None:
            corpora = None if given.corpora is None else tuple(given.corpora)
            shown = tuple((one.corpus, one.id) for one in given.shown)
            search: Search | None = Search(given.query, corpora, shown)
        else:
            # Its own, or the one that all attempts at its task were made from.
            names = dict.fromkeys((run.id, run.task or run.id))
            told = [await self._log.list(None, _RUN_EVENTS, name) for name in names]
            searches = [find_search(one.event for one in found.events) for found in told]
            search = next((one for one in searches if one is not None), None)
        score = None if run.score is None else load_score(run.score)
        parents = None if run.parents is None else tuple(run.parents)
        made = Run(run.id, run.question, run.answer, score, model=run.model, parents=parents)
        return Offered(made, run.task or run.id, search)

    async def _record(self, episode: Episode) -> list[Fed | NotFed]:
        """What became of each of an episode's runs."""
        ratings = [
            *(RatedDocument(corpus=c, id=i, rating=1) for c, i in episode.helped),
            *(RatedDocument(corpus=c, id=i, rating=-1) for c, i in episode.harmed),
        ]
        said: dict[str, Any] = {"source": episode.source, "run_id": episode.task}
        if episode.corpora is not None:
            said["corpora"] = list(episode.corpora)
        request = RecordRequest(query=episode.query, ratings=ratings, **said)
        try:
            done = await self._matrixd.record(request, key=episode.key)
        except Conflict as error:
            known = error.details.get("episode_id")
            if known is None:
                # The playbook is full, say: that is for whoever feeds it to mend.
                raise
            reason = f"its task was recorded before, with other content: {known}"
            return [NotFed(run=name, reason=reason) for name in episode.runs]
        except (Unprocessable, Invalid) as error:
            # A document or corpus that is gone meanwhile: this task alone.
            reason = f"refused by the playbook: {error.message}"
            return [NotFed(run=name, reason=reason) for name in episode.runs]
        return [
            Fed(
                run=name,
                episode_id=done.episode_id,
                source=episode.source,
                helped=describe_refs(episode.helped),
                harmed=describe_refs(episode.harmed),
                duplicate=done.duplicate,
                retired=done.retired,
            )
            for name in episode.runs
        ]

    async def _withhold(self, one: Offered, outcome: Withheld, label: str) -> NotFed:
        withdrawn: list[str] = []
        if outcome.tainted and one.run.score is not None:
            # Held out only since it was recorded, perhaps: then it has to leave again.
            source = name_source(one.run.score.scorer, label)
            withdrawn = await self._withdraw(one.task, source)
        hits = [show_hit(hit) for hit in outcome.hits]
        return NotFed(run=outcome.run, reason=outcome.reason, hits=hits, withdrawn=withdrawn)

    async def _withdraw(self, task: str, source: str) -> list[str]:
        found = await self._matrixd.list_episodes(source=source, run_id=task)
        names = [one.episode_id for one in found.episodes if one.retired_at is None]
        if names:
            reason = "held out: the firewall stopped a run that it was recorded from"
            await self._matrixd.retire(RetireRequest(episode_ids=names, reason=reason))
        return names

    async def _tell(
        self,
        runs: Sequence[FeedRun],
        offered: Sequence[Offered],
        done: Sequence[Fed | NotFed],
        tainted: set[str],
    ) -> None:
        by_run = {one.run: one for one in done}
        events = [
            _make_event(run, one, by_run[run.id], run.id in tainted)
            for run, one in zip(runs, offered, strict=True)
        ]
        for start in range(0, len(events), _BATCH):
            await self._log.record(events[start : start + _BATCH])


def _decide(
    offered: Sequence[Offered], request: FeedRequest
) -> tuple[list[Episode], list[Withheld]]:
    return decide_feed(
        offered,
        read_pairs(request.held_out),
        policy=request.policy,
        label=request.label,
        parents=request.parents,
        similar=request.similar,
    )


def _measure_coverage(offered: Sequence[Offered]) -> Coverage:
    scores = [one.run.score for one in offered if one.run.score is not None]
    return count_coverage((one.run.id for one in offered), scores)


def _make_event(run: FeedRun, offered: Offered, done: Fed | NotFed, tainted: bool) -> Event:
    """What became of a run. Of what is held out no text is kept."""
    score, search = offered.run.score, offered.search
    attributes: dict[str, Any] = {"run": run.id, "held_out": tainted}
    evidence: list[str] = []
    if isinstance(done, Fed):
        attributes |= {"decision": "recorded", "episode_id": done.episode_id}
        attributes |= {"source": done.source, "harmed": done.harmed}
        evidence = done.helped
    else:
        attributes |= {"decision": "withheld", "reason": done.reason}
        evidence = list(score.evidence) if score is not None else []
    inputs: Any = None
    outputs: Any = None
    if not tainted:
        inputs = {"question": run.question[:_KEPT_TEXT]}
        if search is not None:
            inputs |= {"query": search.query, "corpora": search.corpora}
        kept = run.evidence[:_KEPT_EVIDENCE]
        texts = [{"id": one.id, "text": one.text[:_KEPT_TEXT]} for one in kept]
        outputs = {"answer": run.answer[:_KEPT_TEXT], "evidence": texts}
    # Another outcome of the same run is another event; the same one again is not.
    basis = f"{run.id}\n{attributes['decision']}\n{attributes.get('episode_id')}\n{tainted}"
    return Event(
        # The task is the run that the search belongs to; its attempts are nodes of it.
        run_id=offered.task,
        id=f"{MODE}:{hashlib.sha256(basis.encode()).hexdigest()[:40]}",
        node_id=run.id,
        service="observerd",
        mode=MODE,
        model=run.model or None,
        status="ok",
        verdict=score.verdict if score is not None else None,
        scorer_status=score.scorer_status if score is not None else None,
        score=score.score if score is not None else None,
        evidence=evidence[:1000],
        attributes=attributes | ({"scorer": score.scorer} if score is not None else {}),
        inputs=inputs,
        outputs=outputs,
    )
