"""scripts/audit against a chatd whose frontier is a fake, and an observerd beside it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.app import create_app
from shared.daemons import ROOT
from tests.support.apps import make_config, running
from tests.support.chatd import World, world
from tests.support.providers import Reply, Said, Seen, json_reply
from tests.support.sockets import serving

pytestmark = pytest.mark.anyio

BASELINES = "/observer/distillation/baselines"


class Edge:
    """chatd and observerd under the paths by which the gateway shows them."""

    def __init__(self, chat: World, observer: httpx.AsyncClient, url: str) -> None:
        self.chat = chat
        self.observer = observer
        self.url = url

    async def put_runs(self, count: int, verdict: str = "accepted", **attributes: Any) -> None:
        """What a feed would have recorded of so many runs."""
        events = [
            {
                "run_id": f"{verdict}-{n}", "node_id": f"{verdict}-{n}", "status": "ok",
                "mode": "distillation.feed", "verdict": verdict, "scorer_status": "ok",
                "score": 0.9 if verdict == "accepted" else 0.1, "evidence": ["jobs/d1"],
                "attributes": {"run": f"{verdict}-{n}", "scorer": "deterministic/1", **attributes},
                "inputs": {"question": f"who repairs machine {n}?"},
                "outputs": {
                    "answer": f"fitter {n}",
                    "evidence": [{"id": "jobs/d1", "text": f"fitter {n} repairs machine {n}"}],
                },
            }
            for n in range(count)
        ]  # fmt: skip
        answer = await self.observer.post("/observer/events", json={"events": events})
        assert answer.status_code == 200, answer.text

    async def audit(self, *arguments: str) -> tuple[int, str]:
        """Runs the command."""
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "scripts" / "audit"),
            *arguments,
            env={**os.environ, "LAKEHOUSE_GATEWAY": self.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def chain(self) -> list[dict[str, Any]]:
        """The audits so far."""
        found = (await self.observer.get(BASELINES)).json()
        assert found["problems"] == []
        return found["baselines"]


@asynccontextmanager
async def edge(tmp_path: Path, model: str = "chat/large") -> AsyncGenerator[Edge]:
    app = create_app(make_config(tmp_path / "observer"))
    async with world(tmp_path, models={"frontier_review": model}) as w, running(app) as transport:

        async def route(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"].removeprefix("/v1")
            to = app if path.startswith("/observer") else w.app
            await to({**scope, "path": path, "raw_path": path.encode()}, receive, send)

        async with (
            serving(route) as port,
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            yield Edge(w, client, f"http://127.0.0.1:{port}")


def verdict(name: str, **more: Any) -> str:
    score = {"accepted": 0.9, "rejected": 0.1}[name]
    evidence = ["e1"] if name == "accepted" else []
    return json.dumps(
        {"verdict": name, "score": score, "reasons": ["read it"], "evidence": evidence, **more}
    )


def say(text: str) -> Callable[[Seen], Reply]:
    reply = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return lambda _: json_reply(reply)


async def test_a_judge_that_agrees_is_chained_and_no_run_counts_twice(tmp_path: Path) -> None:
    async with edge(tmp_path) as e:
        await e.put_runs(20)
        await e.put_runs(5, "rejected")
        await e.put_runs(3, held_out=True)
        fake = e.chat.fakes["chat"]
        fake.said = Said(pieces=(verdict("accepted"),))
        status, shown = await e.audit("--size", "8", "--seed", "4")
        assert status == 0, shown
        assert "8 of 17 runs drawn" in shown
        (first,) = await e.chain()
        assert first["judge"] == "tier/frontier_review: chat/large"
        assert first["scorer"] == "deterministic/1"
        metrics = first["metrics"]
        assert (metrics["runs"], metrics["judged"], metrics["upheld"]) == (8, 8, 8)
        sample = metrics["sample"]
        assert (sample["seed"], sample["population"], sample["unread"]) == (4, 17, 0)
        asked = [one.body["messages"][1]["content"] for one in fake.seen]
        assert len(asked) == 8
        assert all("[e1] fitter" in one for one in asked)
        # The same audit again asks nobody and adds nothing; a larger one asks only new runs.
        status, shown = await e.audit("--size", "8", "--seed", "4")
        assert (status, len(await e.chain()), len(fake.seen)) == (0, 1, 8)
        assert "Nothing is left to audit" in shown
        status, shown = await e.audit("--size", "12", "--seed", "4")
        second = (await e.chain())[1]
        assert (status, len(fake.seen), second["prev"]) == (0, 12, first["hash"])
        assert set(sample["runs"]).isdisjoint(second["metrics"]["sample"]["runs"])
        status, shown = await e.audit("--lineage")
        assert (status, "2 audits; the chain is whole" in shown) == (0, True)


async def test_a_judge_that_disagrees_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    async with edge(tmp_path) as e:
        await e.put_runs(10)
        await e.put_runs(10, "rejected")
        fake = e.chat.fakes["chat"]
        fake.replies = [
            *[say(verdict("rejected"))] * 12,
            say("I would accept it."),
            say(verdict("accepted", evidence=["e7"])),
            say(verdict("accepted", score=3)),
            say(verdict("accepted") + verdict("accepted")),
            say(""),
        ]
        fake.said = Said(pieces=(verdict("accepted"),))
        out = tmp_path / "out.json"
        status, shown = await e.audit("--size", "20", "--verdicts", "decided", "--out", str(out))
        assert status == 1, shown
        assert "Only 15 of 20 replies could be read" in shown
        (entry,) = await e.chain()
        metrics = entry["metrics"]
        assert (metrics["runs"], metrics["judged"], metrics["coverage"]) == (20, 15, 0.75)
        assert metrics["upheld"] < 15
        assert metrics["agreement"]["kappa"]["low"] <= metrics["agreement"]["kappa"]["value"]
        assert metrics["sample"]["unread"] == 5
        assert json.loads(out.read_text()) == [entry]
        # What could not be read may be asked again, and only that.
        fake.seen.clear()
        status, shown = await e.audit("--size", "20", "--verdicts", "decided")
        assert (status, len(fake.seen), len(await e.chain())) == (0, 5, 2)


async def test_a_judge_of_whom_nothing_can_be_read_agrees_with_nobody(tmp_path: Path) -> None:
    async with edge(tmp_path) as e:
        await e.put_runs(6)
        e.chat.fakes["chat"].said = Said(pieces=("Looks fine to me!",))
        status, shown = await e.audit()
        assert (status, "0 of 0 upheld, 6 unread" in shown) == (1, True), shown
        (entry,) = await e.chain()
        assert entry["metrics"]["agreement"]["observed"]["value"] is None
        assert entry["metrics"]["coverage"] == 0


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("openrouter/vendor/opus", "openrouter"),
        ("", "frontier_review"),
    ],
)
async def test_without_a_frontier_the_audit_says_what_to_do(
    tmp_path: Path, model: str, word: str
) -> None:
    async with edge(tmp_path, model or "chat/large") as e:
        await e.put_runs(4)
        tier = [] if model else ["--tier", "frontier_reviews"]
        status, shown = await e.audit(*tier)
        assert (status, word in shown) == (2, True), shown
        assert "Traceback" not in shown
        assert await e.chain() == []


async def test_a_frontier_that_does_not_answer_leaves_the_chain_as_it_was(tmp_path: Path) -> None:
    async with edge(tmp_path) as e:
        status, shown = await e.audit()
        assert (status, "No run can be audited" in shown) == (2, True)
        await e.put_runs(6)
        fault = {"error": {"message": "overloaded"}}
        e.chat.fakes["chat"].always = json_reply(fault, 529)
        status, shown = await e.audit()
        assert (status, "does not answer" in shown) == (2, True), shown
        assert await e.chain() == []


async def test_the_chain_itself_refuses_what_was_counted(tmp_path: Path) -> None:
    body: dict[str, Any] = {
        "held_out": "h", "scorer": "s", "judge": "tier/x: m",
        "sample": {"seed": 1, "population": 9},
        "verdicts": [{"run": f"r{n}", "scorer": "accepted", "judge": "accepted"} for n in range(4)],
    }  # fmt: skip
    async with edge(tmp_path) as e:
        first = (await e.observer.post(BASELINES, json=body)).json()
        other = {**body, "judge": "tier/x: n"}
        assert (await e.observer.post(BASELINES, json=other)).json()["seq"] == 2
        # The same one again is that entry, although another came since.
        assert (await e.observer.post(BASELINES, json=body)).json() == first
        more = [*body["verdicts"], {"run": "r9", "scorer": "accepted", "judge": "rejected"}]
        again = await e.observer.post(BASELINES, json={**body, "verdicts": more})
        assert (again.status_code, again.json()["error"]["details"]["runs"]) == (
            409,
            ["r0", "r1", "r2", "r3"],
        )
        for wrong in ([{"scorer": "accepted"}], body["verdicts"] * 2):
            answer = await e.observer.post(BASELINES, json={**body, "verdicts": wrong})
            assert answer.status_code == 400
        assert len(await e.chain()) == 2
