"""Usage, cost, and keys that must be nowhere."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InsufficientStorage
from tests.support.chatd import CLOUDS, WIRES, events_of, world, write_all_keys, write_key
from tests.support.providers import Reply, Said, Seen, json_reply

pytestmark = pytest.mark.anyio

PRICES = {
    "*/dear": {"input": 5.0, "output": 25.0, "cached": 0.5},
    "ollama/*": {"input": 0, "output": 0},
}


@pytest.mark.parametrize("usage", [True, False], ids=["counted", "uncounted"])
async def test_streamed_costs_what_whole_costs_to_the_token(tmp_path: Path, usage: bool) -> None:
    async with world(tmp_path, prices=PRICES) as w:
        for wire in WIRES:
            w.fakes[wire].said = Said(input=1000, output=300, cached=0, usage=usage)
            whole = (await w.chat(f"{wire}/dear")).json()["usage"]
            streamed = events_of((await w.chat(f"{wire}/dear", stream=True)).text)[-1]["usage"]
            assert whole == streamed
            assert whole["estimated"] is not usage
            if usage:
                assert whole["prompt_tokens"] == 1000
                assert whole["completion_tokens"] == 300
                assert whole["cost_usd"] == pytest.approx(0.0125)
            else:
                assert whole["prompt_tokens"] > 0 < whole["completion_tokens"]
        records = await w.records(2 * len(WIRES))
        for wire in WIRES:
            one, other = (r for r in records if r["provider"] == wire)
            assert one["usage"] == other["usage"]
            assert one["cost_usd"] == other["cost_usd"]
            assert {one["stream"], other["stream"]} == {True, False}


async def test_cached_tokens_have_their_price_and_unknown_prices_are_null(tmp_path: Path) -> None:
    async with world(tmp_path, prices=PRICES) as w:
        for wire in ("chat", "messages", "responses", "gemini"):
            w.fakes[wire].said = Said(input=1000, output=0, cached=800)
            used = (await w.chat(f"{wire}/dear")).json()["usage"]
            assert (used["prompt_tokens"], used["cached_tokens"]) == (1000, 800)
            assert used["cost_usd"] == pytest.approx((200 * 5 + 800 * 0.5) / 1e6)
        assert (await w.chat("chat/other")).json()["usage"]["cost_usd"] is None
        assert (await w.chat("ollama/any")).json()["usage"]["cost_usd"] == 0.0
        report = (await w.client.get("/chat/usage")).json()
        rows = {(row["provider"], row["model"]): row for row in report["rows"]}
        assert rows["chat", "other"]["unpriced_calls"] == 1
        assert rows["ollama", "any"]["unpriced_calls"] == 0
        assert report["calls"] == 6
        assert report["cost_usd"] == pytest.approx(4 * 0.0014)


async def test_what_the_provider_says_it_cost_wins(tmp_path: Path) -> None:
    body = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.25},
    }
    async with world(tmp_path, prices=PRICES) as w:
        w.fakes["chat"].replies = [json_reply(body)]
        assert (await w.chat("chat/dear")).json()["usage"]["cost_usd"] == 0.25


async def test_sums_survive_restarts(tmp_path: Path) -> None:
    for turn in range(1, 4):
        async with world(tmp_path, prices=PRICES, checkpoint_records=10) as w:
            for _ in range(6):
                await w.chat("chat/dear")
            w.fakes["chat"].always = json_reply({"error": {"message": "x"}}, 400)
            await w.chat("chat/dear")
            report = (await w.client.get("/chat/usage")).json()
            (row,) = report["rows"]
            assert (row["calls"], row["failed"]) == (7 * turn, turn)
            assert row["prompt_tokens"] == 72 * turn
            one = (12 * 5 + 7 * 25) / 1e6
            assert row["cost_usd"] == pytest.approx(6 * turn * one)


async def test_records_say_what_happened(tmp_path: Path) -> None:
    async with world(tmp_path, fallbacks={"chat/x": ["messages/y"]}) as w:
        w.fakes["chat"].always = json_reply({"error": {"message": "no"}}, 404)
        got = await w.complete("chat/x", stream=True)
        assert got.status_code == 200
        (record,) = await w.records(1)
        assert record["request_id"] == got.headers["x-request-id"]
        wanted = {
            "surface": "completions",
            "asked": "chat/x",
            "provider": "messages",
            "model": "y",
            "stream": True,
            "outcome": "ok",
            "attempts": 2,
            "finish_reason": "stop",
        }
        assert {name: record[name] for name in wanted} == wanted
        assert record["ms"] >= record["first_ms"] > 0
        assert await w.figure('chatd_calls_total{outcome="ok",provider="messages"}') == 1
        tokens = 'gen_ai_client_token_usage_total{gen_ai_provider_name="messages"'
        assert await w.figure(f'{tokens},gen_ai_token_type="input"}}') == 12
        assert await w.figure('chatd_faults_total{kind="status",provider="chat"}') == 1


async def test_nothing_is_spent_that_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.journal import Journal

    async with world(tmp_path) as w:
        assert (await w.chat("chat/x")).status_code == 200
        full = InsufficientStorage("The disk is full.")
        monkeypatch.setattr(Journal, "failure", property(lambda _: full))
        before = len(w.fakes["chat"].seen)
        assert (await w.chat("chat/x")).status_code == 507
        assert (await w.complete("chat/x", stream=True)).status_code == 507
        assert len(w.fakes["chat"].seen) == before
        assert "full" in (await w.client.get("/ready")).json()["error"]["message"]


class Tee(io.StringIO):
    """Standard error, kept."""


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Tee:
    kept = Tee()
    monkeypatch.setattr(sys, "stderr", kept)
    return kept


CANARIES = {name: f"sk-canary-{name}-0123456789abcdef" for name in CLOUDS if name != "ollama"}


def telltale(seen: Seen) -> Reply:
    """A provider that repeats whatever key it was sent, in every place that it can."""
    sent = seen.headers
    key = sent.get("authorization", "") + sent.get("x-api-key", "") + sent.get("x-goog-api-key", "")
    error = {"message": f"bad key {key}", "code": 500, "type": key}
    return json_reply({"error": error}, 500, x_debug=key, retry_after=key)


@pytest.mark.parametrize("stream", [False, True])
async def test_canary_keys_are_nowhere(
    tmp_path: Path, errors: Tee, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    caplog.set_level("DEBUG")
    write_all_keys(tmp_path)
    for name, key in CANARIES.items():
        write_key(tmp_path, name, f"{CLOUDS[name]['key']}={key}\n")
    models = ["x:cloud", "openrouter/a/b", "kimi/x", "opencode/x", "opencode/claude-x"]
    models += ["opencode/gpt-x", "opencode/gemini-x"]
    shown: list[str] = []

    async def ask(w: Any, model: str) -> None:
        for path, more in (
            ("/chat", {}),
            ("/v1/chat/completions", {}),
            ("/v1/messages", {"max_tokens": 5}),
        ):
            body = {"model": model, "messages": [{"role": "user", "content": "a"}], **more}
            answer = await w.client.post(path, json={**body, "stream": stream})
            shown.append(answer.text + str(answer.headers))

    def in_the_middle(seen: Seen) -> Reply:
        error = telltale(seen).pieces[0]
        first = b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
        pieces = [first, b"data: " + error + b"\n\n"]
        return Reply(200, {"content-type": "text/event-stream"}, pieces, gap_s=0.01)

    def inside_200(seen: Seen) -> Reply:
        return json_reply({"error": {"message": seen.headers.get("authorization", "x")}})

    def as_text(seen: Seen) -> Reply:
        return Reply(500, {"content-type": "text/plain"}, [str(seen.headers).encode()])

    async with world(tmp_path, providers=CLOUDS, retry_base_s=0.001, breaker_failures=9999) as w:
        for tell in (telltale, in_the_middle, inside_200, as_text):
            for fake in w.fakes.values():
                fake.replies = [tell] * 100
            for model in models:
                await ask(w, model)
        sent = [str(seen.headers) for fake in w.fakes.values() for seen in fake.seen]
        for key in CANARIES.values():
            assert any(key in each for each in sent), "the key was not sent, so nothing is shown"
        for path in ("/metrics", "/chat/providers?probe=1", "/chat/usage", "/v1/models", "/ready"):
            shown.append((await w.client.get(path)).text)
        records = await w.records(len(models) * 12)
        shown += [str(records), errors.getvalue(), caplog.text, str(w.config.effective())]
    everything = "\n".join(shown)
    assert "sk-canary" not in everything
    assert "[key]" in everything  # it was told, and taken out


def test_the_configuration_shows_no_key(tmp_path: Path) -> None:
    from services.chatd.store.build import build_providers
    from tests.support.apps import make_config

    write_key(tmp_path, "kimi", "KIMI_API_KEY=sk-canary-kimi-0123456789\n")
    config = make_config(tmp_path, chatd={"keys_dir": tmp_path / "keys"})
    assert build_providers(config)["kimi"].registered
    assert "sk-canary" not in str(config.effective())
    assert "sk-canary" not in repr(config)
