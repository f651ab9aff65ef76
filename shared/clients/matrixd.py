"""Client of matrixd: corpora, searches, the playbook, and what feeds a model."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from shared.clients.base import ServiceClient
from shared.config import Config
from shared.errors import Invalid
from shared.runtime import Transports
from shared.wire.base import Request
from shared.wire.matrixd import (
    CorpusDeleted,
    CorpusInfo,
    CorpusList,
    CorpusSpec,
    MatrixAnswer,
    MatrixSearch,
    Tuning,
)
from shared.wire.matrixd_context import (
    Composed,
    ComposeRequest,
    Downgraded,
    DowngradeRequest,
    RelevanceAnswer,
    RelevanceRequest,
)
from shared.wire.matrixd_playbook import (
    EpisodeInfo,
    EpisodeList,
    Recorded,
    RecordRequest,
    Retired,
    RetireRequest,
)

CORPORA = "/matrix/corpora"
PLAYBOOK = "/matrix/playbook"
M = TypeVar("M", bound=BaseModel)


class MatrixdClient(ServiceClient):
    """Talks to matrixd.

    Args:
        config: for the address and the token.
        transports: in-process transports by service name, in place of the network.
    """

    def __init__(self, config: Config, transports: Transports | None = None) -> None:
        super().__init__(config, "matrixd", transports)

    async def create_corpus(
        self, spec: CorpusSpec, *, replace: bool = False, wait_s: float = 0.0
    ) -> CorpusInfo:
        """Makes a corpus; harmless when the same one exists. `job` tells how far it is.

        Raises:
            Conflict: another one has this name, and `replace` does not say to change it.
            Invalid, NotFound: the spec or its source.
        """
        query = f"?wait={wait_s:g}&replace={'true' if replace else 'false'}"
        return await self._post(CORPORA + query, spec, CorpusInfo)

    async def list_corpora(self) -> CorpusList:
        """All corpora by name."""
        response = await self.request("GET", CORPORA)
        return CorpusList.model_validate_json(response.content)

    async def get_corpus(self, name: str) -> CorpusInfo:
        """One corpus and how far its job is.

        Raises:
            NotFound: there is none of this name.
        """
        response = await self.request("GET", f"{CORPORA}/{_segment(name)}")
        return CorpusInfo.model_validate_json(response.content)

    async def refresh_corpus(self, name: str, *, wait_s: float = 0.0) -> CorpusInfo:
        """Brings a corpus up to date with its source.

        Raises:
            NotFound: there is none of this name.
        """
        path = f"{CORPORA}/{_segment(name)}/refresh?wait={wait_s:g}"
        response = await self.request("POST", path)
        return CorpusInfo.model_validate_json(response.content)

    async def tune_corpus(self, name: str, tuning: Tuning) -> CorpusInfo:
        """Sets how a corpus is searched from now on.

        Raises:
            NotFound: there is none of this name.
        """
        path = f"{CORPORA}/{_segment(name)}/tuning"
        headers = {"content-type": "application/json"}
        content = tuning.model_dump_json(exclude_none=True)
        response = await self.request("PUT", path, content=content, headers=headers)
        return CorpusInfo.model_validate_json(response.content)

    async def delete_corpus(self, name: str) -> bool:
        """Removes a corpus; false when there was none."""
        response = await self.request("DELETE", f"{CORPORA}/{_segment(name)}")
        return CorpusDeleted.model_validate_json(response.content).deleted

    async def search(self, request: MatrixSearch) -> MatrixAnswer:
        """Documents of many corpora as one list.

        Raises:
            NotFound: none of the corpora exists. Unavailable: none can be searched now.
        """
        return await self._post("/matrix/search", request, MatrixAnswer)

    async def record(self, request: RecordRequest, *, key: str | None = None) -> Recorded:
        """Records what worked for a query; durable on return, safe to repeat.

        Raises:
            Unprocessable: a rated document or corpus does not exist.
        """
        return await self._post(PLAYBOOK, request, Recorded, key)

    async def list_episodes(
        self,
        limit: int = 100,
        cursor: str | None = None,
        *,
        source: str | None = None,
        run_id: str | None = None,
        retired: bool = False,
    ) -> EpisodeList:
        """A page of the playbook, newest first; of one source or one run, if said.

        With `retired` also what was withdrawn.
        """
        params: dict[str, str | int] = {"limit": limit}
        given = {"cursor": cursor, "source": source, "run_id": run_id}
        params |= {name: value for name, value in given.items() if value is not None}
        if retired:
            params["retired"] = "true"
        response = await self.request("GET", PLAYBOOK, params=params)
        return EpisodeList.model_validate_json(response.content)

    async def get_episode(self, episode: str) -> EpisodeInfo:
        """One episode.

        Raises:
            NotFound: there is none of this id.
        """
        response = await self.request("GET", f"{PLAYBOOK}/{_segment(episode)}")
        return EpisodeInfo.model_validate_json(response.content)

    async def retire(self, request: RetireRequest) -> Retired:
        """Withdraws episodes; searches are then as if they had never been recorded.

        Raises:
            NotFound: one of them does not exist; none was withdrawn.
        """
        return await self._post(f"{PLAYBOOK}/retire", request, Retired)

    async def filter_relevant(self, request: RelevanceRequest) -> RelevanceAnswer:
        """Candidates without those that are near the query but about something else."""
        return await self._post("/matrix/relevance", request, RelevanceAnswer)

    async def check_downgrade(self, request: DowngradeRequest) -> Downgraded:
        """The mode that a model should be asked in."""
        return await self._post("/matrix/downgrade", request, Downgraded)

    async def compose(self, request: ComposeRequest) -> Composed:
        """The slice of the corpora that a model needs for a query, as messages.

        Raises:
            Unprocessable: the budget is too small for the query itself.
        """
        return await self._post("/matrix/compose", request, Composed)

    async def _post(self, path: str, body: Request, made: type[M], key: str | None = None) -> M:
        headers = {"content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        content = body.model_dump_json(exclude_unset=True)
        response = await self.request("POST", path, content=content, headers=headers)
        return made.model_validate_json(response.content)


def _segment(value: str) -> str:
    if not value or value in (".", ".."):
        raise Invalid(f"{value!r} cannot stand in a path.")
    return quote(value, safe="")
