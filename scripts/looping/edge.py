"""The gateway as the loop uses it: composing, judging, feeding, refining, distilling."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.lift.edge import Edge, EdgeError, Ref

DISTILL = "/v1/observer/distillation"
BUDGET = 3000
# Passes over the event log in one round's refinement, and the wait between two of them.
DRAW_WAIT_S, DRAW_PAUSE_S = 30.0, 0.2


@dataclass(frozen=True, slots=True)
class Context:
    """Composed messages, and the documents that their source numbers stand for."""

    messages: list[dict[str, str]]
    refs: dict[int, Ref]


class LoopEdge(Edge):
    """The lift's client with the routes of the loop."""

    def compose(self, query: str, *, playbook: bool, run: str = "") -> Context:
        """What a small model is to read for a query, under a run's name."""
        body = {
            "query": query,
            "model": "tier/local_fast",
            "corpora": self.corpora,
            "token_budget": BUDGET,
            "k": 10,
            "use_playbook": playbook,
            "force": True,
        }
        headers = {"x-request-id": run} if run else {}
        found = self.call("POST", "/v1/matrix/compose", json=body, headers=headers).json()
        refs = {one["number"]: (one["corpus"], one["id"]) for one in found["citations"]}
        return Context(found["messages"], refs)

    def score(
        self,
        run: str,
        question: str,
        answer: str,
        evidence: Sequence[Mapping[str, str]],
        references: Sequence[Mapping[str, str]],
        neighbours: Sequence[Mapping[str, str]] = (),
    ) -> dict[str, Any]:
        """The scorer's verdict on an answer."""
        body = {
            "run_id": run,
            "question": question,
            "answer": answer,
            "evidence": list(evidence),
            "references": list(references),
            "neighbours": list(neighbours),
        }
        return self.call("POST", f"{DISTILL}/score", json=body).json()

    def feed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Records what may be recorded of judged runs."""
        return self.call("POST", f"{DISTILL}/feed", json=body).json()

    def export(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Training data of judged runs, with its manifest."""
        return self.call("POST", f"{DISTILL}/export", json=body).json()

    def declare_refiner(self, name: str, spec: Mapping[str, Any]) -> None:
        """Declares what may be refined, from what is observed from now on."""
        newest = self.call("GET", "/v1/observer/events", params={"limit": 1}).json()["events"]
        observed = {"after": newest[-1]["seq"] if newest else 0}
        body = {**spec, "observed": observed}
        self.call("PUT", f"/v1/observer/refiners/{name}", json=body)

    def refine(self, name: str) -> dict[str, Any]:
        """Has the refiner learn from all that was observed, and waits until it is applied.

        Raises:
            EdgeError: the refiner does not come to the end.
        """
        total: dict[str, Any] = {"learnt": 0, "skipped": {}, "decisions": []}
        deadline = time.monotonic() + DRAW_WAIT_S
        while True:
            body = {"limit": 50}
            drawn = self.call("POST", f"/v1/observer/refiners/{name}/draw", json=body).json()
            total["learnt"] += drawn["learnt"]
            for reason, count in drawn["skipped"].items():
                total["skipped"][reason] = total["skipped"].get(reason, 0) + count
            total["decisions"] += [
                {"kind": one["kind"], "values": one["values"], "reason": one["reason"]}
                for one in drawn["decisions"]
            ]
            if drawn["looked"]:
                deadline = time.monotonic() + DRAW_WAIT_S
            view = self.call("GET", f"/v1/observer/refiners/{name}").json()
            if not drawn["more"] and view["applied"]:
                return total | {"incumbent": [view["incumbent"]], "frozen": [view["frozen"]]}
            if time.monotonic() > deadline:
                raise EdgeError(f"The refiner {name} did not come to the end of the event log.")
            if not drawn["looked"]:
                time.sleep(DRAW_PAUSE_S)

    def guard(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Tests the scorer for drift, which freezes the refiner when it has."""
        return self.call("POST", f"/v1/observer/refiners/{name}/drift", json=dict(body)).json()

    def find_trust(self, source: str) -> dict[str, Any]:
        """What the playbook believes of a source, from that source's own ratings."""
        found = self.call("GET", "/v1/matrix/playbook", params={"source": source, "limit": 1})
        return found.json()["sources"].get(source, {})

    def freeze(self, name: str, reason: str) -> None:
        """Stops a refiner for good."""
        self.call("POST", f"/v1/observer/refiners/{name}/freeze", json={"reason": reason})

    def reset_tuning(self) -> None:
        """Has the corpora searched as if nothing had ever been promoted."""
        for corpus in self.corpora:
            self.call("PUT", f"/v1/matrix/corpora/{corpus}/tuning", json={})

    def retire_fed(self, tasks: Sequence[str]) -> None:
        """Retires what was recorded of these tasks."""
        for task in tasks:
            self.call("POST", "/v1/matrix/playbook/retire", json={"run_id": task})
