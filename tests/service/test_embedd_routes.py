"""embedd over ASGI: every route, its refusals, and what lies behind one answer."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pytest

from services.embedd.app import create_app
from shared.clients.embedd import EmbeddClient
from shared.errors import Invalid, NotFound
from shared.wire.embedd import ARROW_STREAM
from shared.wire.fake_ollama import ScriptRule
from tests.support.apps import make_config, running
from tests.support.embedd import world

pytestmark = pytest.mark.anyio


async def test_embed_answers_in_order_with_the_models_own_id(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = (await w.embed("a nurse", "a driver", "a nurse")).json()
        assert answer["model"].startswith("fake/fake-embed:latest@")
        assert answer["dim"] == 256
        assert answer["vectors"][0] == answer["vectors"][2] != answer["vectors"][1]
        assert answer["truncated"] == []
        assert answer["tokens"] > 0
        # The repeated text was sent once.
        assert await w.texts_received() == [["a nurse", "a driver"]]
        # The id is a name as well, and means the same.
        again = (await w.embed("a nurse", model=answer["model"])).json()
        assert again["vectors"][0] == answer["vectors"][0]


async def test_json_numbers_read_back_as_the_same_float32(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = (await w.embed("a nurse")).json()
        whole = await w.embedd.post(
            "/v1/embeddings",
            json={"input": "a nurse", "model": "fake", "encoding_format": "base64"},
        )
        raw = base64.b64decode(whole.json()["data"][0]["embedding"])
        assert np.array(answer["vectors"][0], "<f4").tobytes() == raw


async def test_arrow_carries_the_same_vectors(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        plain = (await w.embed("a", "b", "a")).json()
        answer = await w.embedd.post(
            "/embed",
            json={"texts": ["a", "b", "a"], "model": "fake"},
            headers={"accept": ARROW_STREAM},
        )
        assert answer.headers["content-type"] == ARROW_STREAM
        table = pyarrow.ipc.open_stream(answer.content).read_all()
        table.validate(full=True)
        assert np.array(table["vector"].to_pylist(), "<f4").tolist() == [
            np.array(v, "<f4").tolist() for v in plain["vectors"]
        ]
        metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
        assert metadata == {
            "model": plain["model"],
            "dim": "256",
            "tokens": str(plain["tokens"]),
            "truncated": "[]",
        }
        refused = await w.embedd.post(
            "/embed", json={"texts": ["a"]}, headers={"accept": "text/csv"}
        )
        assert refused.status_code == 406


async def test_large_answers_come_in_pieces_and_are_whole(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(700)]
    async with world(tmp_path) as w:
        plain = (await w.embed(*texts)).json()
        assert len(plain["vectors"]) == 700
        openai = (
            await w.embedd.post("/v1/embeddings", json={"input": texts, "model": "fake"})
        ).json()
        assert [row["index"] for row in openai["data"]] == list(range(700))
        assert [row["embedding"] for row in openai["data"]] == plain["vectors"]
        assert all(len(sent) <= 64 for sent in await w.texts_received())


async def test_openai_shape(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = (
            await w.embedd.post(
                "/v1/embeddings", json={"input": ["a", "b"], "model": "fake", "user": "u"}
            )
        ).json()
        assert set(answer) == {"object", "data", "model", "usage"}
        assert answer["object"] == "list"
        assert [set(row) for row in answer["data"]] == [{"object", "index", "embedding"}] * 2
        assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 2
        assert answer["model"].startswith("fake/fake-embed:latest@")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"texts": []}', "texts is empty"),
        (b'{"texts": ["a", ""]}', "texts[1] is an empty string"),
        (b'{"texts": "a"}', "body.texts"),
        (b'{"texts": ["a", 7]}', "body.texts.1"),
        (b'{"texts": ["a", null]}', "body.texts.1"),
        (b'{"text": ["a"]}', "body.texts"),
        (b'{"texts": ["a"], "modle": "x"}', "body.modle"),
        (b'{"texts": ["a"], "dimensions": 0}', "body.dimensions"),
        (b'{"texts": ["\\ud800"]}', "Invalid JSON"),
        (b'{"texts": ["\xff"]}', "Invalid JSON"),
        (b'{"texts": ["a"]', "Invalid JSON"),
        (b"", "Invalid JSON"),
        (json.dumps({"texts": ["a"] * 6}).encode(), "at most 5"),
    ],
)
async def test_bad_requests_say_what_is_wrong(tmp_path: Path, body: bytes, says: str) -> None:
    async with world(tmp_path, embedd={"max_texts": 5, "max_queued_texts": 5}) as w:
        refused = await w.embedd.post("/embed", content=body)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert says in error["message"]
        assert error["code"] == "invalid"
        assert error["service"] == "embedd"


async def test_nul_and_odd_characters_are_text(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answer = await w.embedd.post(
            "/embed", content=b'{"texts": ["a\\u0000b", " ", "\\ud83d\\ude00"], "model": "fake"}'
        )
        assert answer.status_code == 200
        assert await w.texts_received() == [["a\x00b", " ", "😀"]]


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"input": [1, 2]}, 400, "input", "invalid"),
        ({"input": ""}, 400, "input", "invalid"),
        ({"input": "a", "encoding_format": "int8"}, 400, None, "invalid"),
        ({"input": "a", "model": "absent"}, 404, "model", "model_not_found"),
        ({"input": "a", "model": "local", "dimensions": 64}, 400, "dimensions", "invalid"),
        ({"input": "a", "model": "ollama"}, 503, None, "unavailable"),
    ],
)
async def test_openai_routes_have_openai_errors(
    tmp_path: Path, body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    async with world(tmp_path) as w:
        refused = await w.embedd.post("/v1/embeddings", json=body)
        assert refused.status_code == status
        error = refused.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["param"], error["code"]) == (param, code)
        assert refused.headers["x-request-id"]


async def test_unknown_models_are_404_naming_the_known(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        absent = await w.embed("a", model="absent")
        assert absent.status_code == 404
        assert "minilm" in absent.json()["error"]["message"]
        there = await w.embed("a", model="fake/absent")
        assert there.status_code == 404
        assert "ollama pull absent" in there.json()["error"]["message"]
        assert "fake-embed:latest" in there.json()["error"]["message"]
        other = await w.embed("a", model="local/other")
        assert other.status_code == 404
        pinned = await w.embed("a", model="fake/fake-embed:latest@000000000000")
        assert pinned.status_code == 404
        assert "do not mix" in pinned.json()["error"]["message"]


async def test_the_models_are_listed_with_their_state(tmp_path: Path) -> None:
    aliases = {"test": "fake", "minilm": "local"}
    async with world(tmp_path, embedd={"aliases": aliases, "default_model": "test"}) as w:
        await w.embed("a")
        listed = (await w.embedd.get("/embed/models")).json()
        by_id = {model["id"].partition("@")[0]: model for model in listed["models"]}
        assert listed["default"] == by_id["fake/fake-embed:latest"]["id"]
        assert by_id["fake/fake-embed:latest"]["aliases"] == ["test"]
        assert by_id["fake/fake-embed:latest"]["dim"] == 256
        assert by_id["fake/fake-embed:latest"]["default"]
        assert by_id["local/all-minilm-l6-v2"]["max_tokens"] == 256
        assert by_id["local/all-minilm-l6-v2"]["status"] == "ok"
        assert "cannot be reached" in by_id["ollama/nomic-embed-text"]["status"]


async def test_aliases_and_the_default_resolve_to_the_same_id(tmp_path: Path) -> None:
    settings = {"aliases": {"a": "b", "b": "fake"}, "default_model": "a"}
    async with world(tmp_path, embedd=settings) as w:
        named = (await w.embed("x", model="a")).json()["model"]
        default = (await w.embedd.post("/embed", json={"texts": ["x"]})).json()["model"]
        direct = (await w.embed("x", model="fake")).json()["model"]
        assert named == default == direct
        assert await w.texts_received() == [["x"]]


async def test_ready_asks_the_default_provider_alone(tmp_path: Path) -> None:
    async with world(tmp_path, embedd={"default_model": "fake"}) as w:
        assert (await w.embedd.get("/ready")).json()["checks"] == {"fake": "ok"}
    async with world(tmp_path / "b", embedd={"default_model": "ollama", "aliases": {}}) as w:
        down = await w.embedd.get("/ready")
        assert down.status_code == 503
        assert "ollama serve" in down.json()["error"]["message"]
        embed = await w.embedd.post("/embed", json={"texts": ["a"]})
        assert embed.status_code == 503
        assert "No other model takes its place" in embed.json()["error"]["message"]


async def test_too_much_waiting_is_429_and_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = {"max_texts": 8, "max_queued_texts": 8}
    async with world(tmp_path, embedd=settings) as w:
        await w.ollama.script(ScriptRule(path="/api/embed", delay_s=30, times=None))
        waiting = asyncio.create_task(w.embed(*"abcdef"))
        async with asyncio.timeout(5):
            while not await w.texts_received():
                await asyncio.sleep(0.01)
        refused = await w.embed("x", "y", "z")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        # What is under way already takes no further place.
        joining = asyncio.create_task(w.embed("a", "b", "new"))
        await asyncio.sleep(0)
        waiting.cancel()
        joining.cancel()
        await asyncio.gather(waiting, joining, return_exceptions=True)
        await w.ollama.clear()
        assert (await w.embed("x", "y", "z")).status_code == 200


async def test_the_deadline_is_kept_and_done_work_stays_cached(tmp_path: Path) -> None:
    settings = {"providers": {"fake": _fake(batch=1, concurrency=1)}, "default_model": "fake"}
    async with world(tmp_path, embedd={**settings, "aliases": {}}) as w:
        await w.ollama.script(
            ScriptRule(path="/api/embed", contains="slow", delay_s=30, times=None)
        )
        assert (await w.embed("warm")).status_code == 200
        late = await w.embedd.post(
            "/embed", json={"texts": ["quick", "slow"]}, headers={"x-deadline-ms": "1500"}
        )
        assert late.status_code == 504
        await w.ollama.clear()
        assert (await w.embed("quick", "slow")).status_code == 200
        assert await w.texts_received() == [["slow"]]


def _fake(**settings: Any) -> dict[str, Any]:
    return {"kind": "ollama", "daemon": "fake_ollama", "model": "fake-embed", **settings}


async def test_the_client_speaks_for_other_daemons(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    async with running(create_app(config)) as transport:
        client = EmbeddClient(config, {"embedd": transport})
        with pytest.raises(NotFound, match="Known"):
            await client.embed(["a"], model="absent")
        with pytest.raises(Invalid, match="empty"):
            await client.embed([""])
        assert (await client.list_models()).default.startswith("local/")
        answer = await client.embed(["a nurse"])
        table = pyarrow.ipc.open_stream(await client.embed_arrow(["a nurse"])).read_all()
        assert table["vector"].to_pylist()[0] == pytest.approx(answer.vectors[0])
        await client.aclose()


async def test_figures_tell_texts_hits_and_failures(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.embed("a", "b")
        await w.embed("a", "c")
        assert await w.figure('embedd_texts_total{provider="fake"}') == 3
        assert await w.figure('embedd_cache_hits_total{where="memory"}') == 1
        assert await w.figure("embedd_cache_misses_total") == 3
        assert await w.figure('embedd_batch_texts_count{provider="fake"}') == 2
        assert await w.figure("embedd_cache_entries") == 3
        assert await w.figure("embedd_cache_bytes") > 3 * 1024
        assert await w.figure("embedd_resident_bytes") > 1e6
        await w.ollama.script(ScriptRule(path="/api/embed", status=500))
        assert (await w.embed("d")).status_code == 502
        assert await w.figure('embedd_failures_total{provider="fake"}') == 1
        assert await w.figure('embedd_queued_texts{provider="fake"}') == 0
