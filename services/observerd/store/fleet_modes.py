"""The modes that other daemons carry out."""

from __future__ import annotations

from typing import Any, cast

from services.observerd.store.modes import Call, Mode
from shared.clients.base import ServiceClient
from shared.clients.chatd import ChatdClient
from shared.clients.embedd import EmbeddClient
from shared.clients.matrixd import MatrixdClient
from shared.clients.pathwayd import PathwaydClient
from shared.clients.queryd import QuerydClient
from shared.config import Config
from shared.errors import Invalid
from shared.runtime import Transports
from shared.wire.chatd import ChatRequest
from shared.wire.matrixd import MatrixSearch
from shared.wire.matrixd_context import Candidate, DowngradeRequest, RelevanceRequest
from shared.wire.matrixd_playbook import RecordRequest
from shared.wire.pathwayd import PathwaySearch
from shared.wire.queryd import SqlRequest


class Peers:
    """The daemons that modes call."""

    def __init__(self, config: Config, transports: Transports | None) -> None:
        self.matrixd = MatrixdClient(config, transports)
        self.pathwayd = PathwaydClient(config, transports)
        self.queryd = QuerydClient(config, transports)
        self.chatd = ChatdClient(config, transports)
        self.embedd = EmbeddClient(config, transports)

    def all(self) -> tuple[ServiceClient, ...]:
        """All of them."""
        return self.matrixd, self.pathwayd, self.queryd, self.chatd, self.embedd

    async def aclose(self) -> None:
        """Closes their connections."""
        for client in self.all():
            await client.aclose()

    def modes(self) -> list[Mode]:
        """A mode for each thing that is asked of them."""
        return [
            Mode(
                "matrix.search",
                "Searches corpora as POST /matrix/search does",
                MatrixSearch,
                self._search_matrix,
            ),
            Mode(
                "matrix.relevance",
                "Drops candidates that are off topic, as POST /matrix/relevance does; "
                "hits of a search can be given as they are",
                RelevanceRequest,
                self._filter_relevant,
                adapt=take_hits,
            ),
            Mode(
                "matrix.downgrade",
                "The mode that a model should be asked in, as POST /matrix/downgrade says",
                DowngradeRequest,
                self._check_downgrade,
            ),
            Mode(
                "sql",
                "Runs a SELECT as POST /sql does; the elapsed time is left out",
                SqlRequest,
                self._run_sql,
            ),
            Mode(
                "pathway.search",
                "Searches traces as POST /pathway/search does",
                PathwaySearch,
                self._search_pathway,
            ),
            Mode(
                "chat",
                "Asks a model as POST /chat does; give it a timeout that fits the model",
                ChatRequest,
                self._chat,
            ),
            Mode(
                "playbook.record",
                "Records what worked for a query, as POST /matrix/playbook does; run_id is the "
                "run's unless given",
                RecordRequest,
                self._record,
                side_effects=True,
            ),
        ]

    async def _search_matrix(self, request: MatrixSearch, _: Call) -> Any:
        return (await self.matrixd.search(request)).model_dump(mode="json")

    async def _filter_relevant(self, request: RelevanceRequest, _: Call) -> Any:
        return (await self.matrixd.filter_relevant(request)).model_dump(mode="json")

    async def _check_downgrade(self, request: DowngradeRequest, _: Call) -> Any:
        return (await self.matrixd.check_downgrade(request)).model_dump(mode="json")

    async def _run_sql(self, request: SqlRequest, _: Call) -> Any:
        # How long it took is no part of what it gave.
        result = await self.queryd.run_query(request)
        return result.model_dump(mode="json", exclude={"elapsed_ms"})

    async def _search_pathway(self, request: PathwaySearch, _: Call) -> Any:
        return (await self.pathwayd.search(request)).model_dump(mode="json")

    async def _chat(self, request: ChatRequest, _: Call) -> Any:
        if request.stream:
            raise Invalid("A node waits for the whole answer. Leave stream out.")
        fields = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
        answer = await self.chatd.chat(fields.pop("model"), fields.pop("messages"), **fields)
        # How long it took is no part of what it gave.
        return answer.model_dump(mode="json", exclude={"latency_ms"})

    async def _record(self, request: RecordRequest, call: Call) -> Any:
        if request.run_id is None:
            update = {"run_id": call.run_id}
            request = RecordRequest.model_validate(
                {**request.model_dump(exclude_unset=True), **update}
            )
        recorded = await self.matrixd.record(request, key=call.idempotency_key)
        # Whether it was there already depends on interruptions, so it is no part of the output.
        return recorded.model_dump(mode="json", exclude={"duplicate"})


def take_hits(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the relevance filter with search hits brought down to what it reads."""
    candidates = inputs.get("candidates")
    if not isinstance(candidates, list):
        return inputs
    known = Candidate.model_fields
    return {
        **inputs,
        "candidates": [
            {key: value for key, value in cast("dict[str, Any]", one).items() if key in known}
            if isinstance(one, dict)
            else one
            for one in cast("list[Any]", candidates)
        ],
    }
