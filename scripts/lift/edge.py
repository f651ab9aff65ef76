"""The gateway as this script uses it: corpora, searches, recordings, nothing but its routes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from scripts.lift.judged import Document

T = TypeVar("T")
R = TypeVar("R")
Ref = tuple[str, str]
# Searches under way at once; they do not change anything.
AT_ONCE = 3
BUILD_WAIT_S = 1800.0


class EdgeError(Exception):
    """The gateway refused something; the message is its own."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: documents best first, the hits as bytes, and whether the playbook spoke."""

    refs: tuple[Ref, ...]
    raw: bytes
    activated: bool
    explained: tuple[dict[str, Any], ...] = ()
    elapsed_ms: float = 0.0

    @property
    def ids(self) -> list[str]:
        """The documents' ids."""
        return [identifier for _, identifier in self.refs]


class Edge:
    """A client of one gateway. `prefix` keeps this run's names apart from others'."""

    def __init__(self, address: str, token: str, prefix: str) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(
            base_url=address,
            headers=headers,
            timeout=httpx.Timeout(360.0, connect=10.0),
            limits=httpx.Limits(max_connections=AT_ONCE),
            trust_env=False,
        )
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self.prefix = prefix
        self.corpora: list[str] = []
        self.runs: list[str] = []

    def close(self) -> None:
        """Lets go of the connections."""
        self._threads.shutdown()
        self._client.close()

    def build_corpora(self, documents: Sequence[Document]) -> None:
        """Stores the documents as objects and builds a corpus of each group."""
        groups: dict[str, list[Document]] = {}
        for document in documents:
            groups.setdefault(document.corpus, []).append(document)
        for number, name in enumerate(sorted(groups), start=1):
            key = f"{self.prefix}/{number}.jsonl"
            corpus = f"{self.prefix}-{number}"
            # Told first, so that it is taken back wherever this is broken off.
            self.corpora.append(corpus)
            lines = [json.dumps({"id": d.id, "text": d.text}) for d in groups[name]]
            self.call("PUT", f"/v1/storage/objects/{key}", content="\n".join(lines).encode())
            spec = {"name": corpus, "source": {"objects": key}, "id": "id", "text": "{text}"}
            self.call("POST", "/v1/matrix/corpora?wait=0", json=spec)
        deadline = time.monotonic() + BUILD_WAIT_S
        for corpus in self.corpora:
            while True:
                info = self.call("GET", f"/v1/matrix/corpora/{corpus}").json()
                if info["job"]["status"] in ("done", "failed"):
                    break
                if time.monotonic() > deadline:
                    raise EdgeError(f"The corpus {corpus} was not built in {BUILD_WAIT_S:.0f} s.")
                time.sleep(0.1)
            if info["job"]["status"] == "failed":
                raise EdgeError(f"The corpus {corpus} could not be built: {info['job']['error']}")

    def drop_corpora(self) -> None:
        """Removes what `build_corpora` made."""
        for number, corpus in enumerate(self.corpora, start=1):
            self.call("DELETE", f"/v1/matrix/corpora/{corpus}")
            self.call("DELETE", f"/v1/storage/objects/{self.prefix}/{number}.jsonl")
        self.corpora = []

    def search(
        self,
        query: str,
        *,
        playbook: bool,
        k: int = 10,
        explain: bool = False,
        corpora: Sequence[str] | None = None,
        tuning: Mapping[str, Any] | None = None,
        run: str = "",
    ) -> Found:
        """One search over this run's corpora.

        Args:
            tuning: how to search this once, whatever the corpora are tuned to.
            run: the run that it is part of: its request id, which observerd sees it by.
        """
        body: dict[str, Any] = {
            "query": query,
            "corpora": list(corpora or self.corpora),
            "k": k,
            "use_playbook": playbook,
            "explain": explain,
        }
        if tuning is not None:
            body["tuning"] = dict(tuning)
        begun = time.perf_counter()
        answer = self.call("POST", "/v1/matrix/search", json=body, headers=_name_run(run))
        elapsed = 1000 * (time.perf_counter() - begun)
        found = answer.json()
        hits = found["hits"]
        unwell = {n: c["reason"] for n, c in found["corpora"].items() if c["status"] != "ok"}
        if unwell:
            raise EdgeError(f"A corpus did not answer: {unwell}")
        return Found(
            tuple((hit["corpus"], hit["id"]) for hit in hits),
            json.dumps(hits, sort_keys=True).encode(),
            found["playbook"]["activated"],
            tuple(hit["explain"] for hit in hits) if explain else (),
            elapsed,
        )

    def search_all(
        self,
        queries: Iterable[str],
        *,
        playbook: bool,
        k: int = 10,
        explain: bool = False,
        corpora: Sequence[str] | None = None,
        tuning: Mapping[str, Any] | None = None,
    ) -> list[Found]:
        """Several searches, a few at once, in the order of the queries."""

        def search(query: str) -> Found:
            return self.search(
                query, playbook=playbook, k=k, explain=explain, corpora=corpora, tuning=tuning
            )

        return self.map(search, queries)

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Does something for each item, a few at once, in their order."""
        return list(self._threads.map(work, items))

    def record(
        self, query: str, ratings: Sequence[tuple[Ref, int]], *, source: str, run: str
    ) -> None:
        """Records one judged list under a run of its own."""
        if run not in self.runs:
            self.runs.append(run)
        body = {
            "query": query,
            "ratings": [{"corpus": c, "id": i, "rating": r} for (c, i), r in ratings],
            "source": f"{self.prefix} {source}",
            "run_id": f"{self.prefix} {run}",
            "corpora": self.corpora,
        }
        self.call("POST", "/v1/matrix/playbook", json=body)

    def retire_run(self, run: str) -> int:
        """Retires what was recorded under a run; gives how many episodes."""
        answer = self.call(
            "POST", "/v1/matrix/playbook/retire", json={"run_id": f"{self.prefix} {run}"}
        )
        self.runs = [each for each in self.runs if each != run]
        return int(answer.json()["retired"])

    def retire_runs(self) -> None:
        """Retires everything that this run recorded."""
        for run in list(self.runs):
            self.retire_run(run)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of texts by the default model."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), 64):
            body = {"texts": list(texts[start : start + 64])}
            vectors.extend(self.call("POST", "/v1/embed", json=body).json()["vectors"])
        return vectors

    def chat(self, model: str, system: str, question: str, form: dict[str, Any]) -> str:
        """A model's answer, as deterministic as it can be."""
        body = {
            "model": model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
            ],
            "temperature": 0,
            "response_format": form,
        }
        return str(self.call("POST", "/v1/chat", json=body).json()["content"])

    def wait_ready(self, seconds: float) -> None:
        """Waits until searching works again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.search("is anyone there", playbook=True)
                return
            except (EdgeError, httpx.TransportError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request.

        Raises:
            EdgeError: the gateway refused it.
        """
        answer = self._client.request(method, path, **arguments)
        if answer.status_code >= 400:
            try:
                message = answer.json()["error"]["message"]
            except (ValueError, KeyError, TypeError):
                message = answer.text[:300]
            raise EdgeError(f"{method} {path.split('?')[0]}: {answer.status_code}, {message}")
        return answer


def _name_run(run: str) -> dict[str, str]:
    return {"x-request-id": run} if run else {}
