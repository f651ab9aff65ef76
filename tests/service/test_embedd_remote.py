"""Providers on other servers: what is sent, what failures mean, what is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedd.app import create_app
from services.embedd.store.remote import BearerKey
from services.fake_ollama.app import create_app as create_fake_ollama
from shared.errors import Unavailable
from shared.keyfile import read_key
from shared.wire.fake_ollama import ScriptRule
from tests.support.apps import client_of, free_ports, make_config
from tests.support.embedd import World, world
from tests.support.listening import listening

pytestmark = pytest.mark.anyio

OLLAMA = {"kind": "ollama", "daemon": "fake_ollama", "model": "fake-embed"}
API = {"kind": "openai", "url": "http://127.0.0.1/v1", "model": "fake-embed"}


def providers(**tables: dict[str, Any]) -> dict[str, Any]:
    """[embedd] with these providers, the first of them the default."""
    return {"providers": tables, "aliases": {}, "default_model": next(iter(tables))}


async def embed(w: World, *texts: str, **more: Any) -> httpx.Response:
    return await w.embedd.post("/embed", json={"texts": texts, **more})


async def test_ollama_is_asked_for_what_changes_the_vector(tmp_path: Path) -> None:
    async with world(tmp_path, embedd=providers(o={**OLLAMA, "dimensions": True})) as w:
        full = (await embed(w, "a b")).json()
        cut = (await embed(w, "a b", dimensions=8)).json()
        assert (full["dim"], cut["dim"]) == (256, 8)
        assert cut["model"] == full["model"]
        sent = [r.json_body for r in await w.ollama.requests() if r.path == "/api/embed"]
        assert sent == [
            {"model": "fake-embed:latest", "input": ["a b"], "truncate": True},
            {"model": "fake-embed:latest", "input": ["a b"], "truncate": True, "dimensions": 8},
        ]


async def test_dimensions_are_refused_where_the_model_does_not_allow_them(tmp_path: Path) -> None:
    async with world(tmp_path, embedd=providers(o=OLLAMA)) as w:
        refused = await embed(w, "a", dimensions=8)
        assert refused.status_code == 400
        assert "embedd.providers.o.dimensions" in refused.json()["error"]["message"]


async def test_more_dimensions_than_there_are_is_400_after_few_calls(tmp_path: Path) -> None:
    async with world(tmp_path, embedd=providers(o={**OLLAMA, "dimensions": True})) as w:
        refused = await embed(w, *(f"t{i}" for i in range(64)), dimensions=1000)
        assert refused.status_code == 400
        assert "gives 256 dimensions" in refused.json()["error"]["message"]
        assert len(await w.texts_received()) <= 7


async def test_openai_shaped_endpoints(tmp_path: Path) -> None:
    table = {**API, "models": ["other"], "dimensions": True}
    async with world(tmp_path, embedd=providers(api=table)) as w:
        answer = (await embed(w, "a", "b c")).json()
        assert answer["model"] == "api/fake-embed"
        assert answer["tokens"] == 3
        assert (await embed(w, "a", dimensions=4)).json()["dim"] == 4
        sent = [r for r in await w.ollama.requests() if r.path == "/v1/embeddings"]
        assert sent[0].json_body == {
            "model": "fake-embed",
            "input": ["a", "b c"],
            "encoding_format": "float",
        }
        assert (await embed(w, "a", model="api/other")).status_code == 404
        assert (await embed(w, "a", model="api/unlisted")).status_code == 404
        listed = (await w.embedd.get("/embed/models")).json()
        assert [m["model"] for m in listed["models"]] == ["fake-embed", "other"]
        assert listed["models"][0]["status"] == "ok"


async def test_a_fleets_token_goes_to_its_daemons_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "from-the-environment")
    tables = providers(o=OLLAMA, api=API)
    async with world(tmp_path, embedd=tables, auth={"token": "fleet-token"}) as w:
        w.embedd.headers["authorization"] = "Bearer fleet-token"
        assert (await embed(w, "a")).status_code == 200
        # The stranger (the same fake, which wants the token) was given none.
        assert (await embed(w, "a", model="api")).status_code == 503
        seen = {r.path: dict(r.headers).get("authorization") for r in await w.ollama.requests()}
        assert seen == {
            "/api/tags": "Bearer fleet-token",
            "/api/embed": "Bearer fleet-token",
            "/v1/embeddings": None,
        }


async def test_keys_come_from_private_files(tmp_path: Path) -> None:
    key_file = tmp_path / "api.env"
    key_file.write_text("# the key\nAPI_KEY='s3cret'\n")
    key_file.chmod(0o600)
    tables = providers(api={**API, "key_file": "api.env"})
    async with world(tmp_path, embedd=tables) as w:
        assert (await embed(w, "a")).status_code == 200
        sent = (await w.ollama.requests())[-1]
        assert dict(sent.headers)["authorization"] == "Bearer s3cret"
    key_file.chmod(0o644)
    async with world(
        tmp_path / "open", embedd=providers(api={**API, "key_file": str(key_file)})
    ) as w:
        refused = await embed(w, "a")
        assert refused.status_code == 503
        assert "chmod 600" in refused.json()["error"]["message"]
        assert str(tmp_path) not in refused.text
        assert await w.ollama.requests() == []
        assert (await w.embedd.get("/ready")).status_code == 503


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("KEY=abc\n", "abc"),
        ("abc", "abc"),
        ('\n# x\nK="a=b"\n', "a=b"),
        ("", None),
        ("# x\n", None),
    ],
)
def test_key_files_are_read_or_refused(tmp_path: Path, content: str, key: str | None) -> None:
    path = tmp_path / "k.env"
    path.write_text(content)
    path.chmod(0o600)
    if key is None:
        with pytest.raises(Unavailable, match="empty"):
            read_key(path)
    else:
        assert read_key(path) == key
    with pytest.raises(Unavailable, match="cannot be read"):
        read_key(tmp_path / "absent")


def test_a_key_of_the_environment_is_never_sent() -> None:
    request = httpx.Request("GET", "http://x", headers={"authorization": "Bearer found"})
    sent = next(BearerKey("").auth_flow(request))
    assert "authorization" not in sent.headers


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize(
    ("rule", "status", "says"),
    [
        ({"status": 400, "error": "odd text"}, 400, "odd text"),
        ({"status": 401}, 503, "key_file"),
        ({"status": 404, "error": "gone"}, 404, "gone"),
        ({"status": 429}, 429, "busy"),
        ({"status": 500, "error": "out of memory"}, 502, "out of memory"),
        ({"status": 503, "error": "loading"}, 503, "loading"),
        ({"malformed": True}, 502, "an answer that is none"),
        ({"embeddings": [[1.0, 2.0], [1.0, 2.0]]}, 502, "2 vectors for 1 texts"),
        ({"embeddings": [[]]}, 502, "empty"),
        ({"body": '{"data": [{"index": 0}], "model": "x"}'}, 502, "an answer that is none"),
        ({"body": "[]"}, 502, "an answer that is none"),
    ],
)
async def test_failures_of_a_provider(
    tmp_path: Path, kind: str, rule: dict[str, Any], status: int, says: str
) -> None:
    table = OLLAMA if kind == "ollama" else API
    path = "/api/embed" if kind == "ollama" else "/v1/embeddings"
    name = "o" if kind == "ollama" else "api"
    async with world(tmp_path, embedd=providers(**{name: table})) as w:
        await w.ollama.script(ScriptRule(path=path, **rule))
        failed = await embed(w, "a")
        assert failed.status_code == status, failed.text
        assert says in failed.json()["error"]["message"]
        # The next time it is well again, and nothing was stored of the failure.
        assert (await embed(w, "a")).json()["dim"] == 256


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_failures_of_the_way_there(tmp_path: Path, kind: str) -> None:
    fake_config = make_config(tmp_path / "fake")
    with listening(create_fake_ollama(fake_config)) as url:
        there = {
            "kind": kind,
            "model": "fake-embed",
            "url": url if kind == "ollama" else f"{url}/v1",
            "timeout_s": 0.4,
        }
        nowhere = {**there, "url": f"http://127.0.0.1:{free_ports(1)[0]}"}
        config = make_config(tmp_path, embedd=providers(there=there, nowhere=nowhere))
        async with client_of(create_app(config)) as client, httpx.AsyncClient() as steer:

            async def ask(model: str) -> httpx.Response:
                return await client.post("/embed", json={"texts": ["a"], "model": model})

            async def script(**rule: Any) -> None:
                path = "/api/embed" if kind == "ollama" else "/v1/embeddings"
                rules = {"rules": [{"path": path, **rule}]}
                (await steer.post(f"{url}/_script", json=rules)).raise_for_status()

            refused = await ask("nowhere")
            assert refused.status_code == 503
            assert "cannot be reached" in refused.json()["error"]["message"]
            await script(cut_after_chunks=0)
            cut = await ask("there")
            assert cut.status_code == 503
            await script(delay_s=30)
            late = await ask("there")
            assert late.status_code == 504
            assert "embedd.providers.there.timeout_s" in late.json()["error"]["message"]
            assert (await ask("there")).json()["dim"] == 256


async def test_a_provider_gone_in_the_middle_gives_nothing_partial(tmp_path: Path) -> None:
    table = {**OLLAMA, "batch": 2, "concurrency": 1}
    async with world(tmp_path, embedd=providers(o=table)) as w:
        await w.ollama.script(
            ScriptRule(path="/api/embed", times=2, contains="t"),
            ScriptRule(path="/api/embed", status=503, error="going away"),
        )
        failed = await embed(w, *(f"t{i}" for i in range(8)))
        assert failed.status_code == 503
        assert "vectors" not in failed.json()
        assert len(await w.texts_received()) == 3
        whole = await embed(w, *(f"t{i}" for i in range(8)))
        assert len(whole.json()["vectors"]) == 8
        # Only what had not come before was asked for again.
        assert [t for call in (await w.texts_received())[3:] for t in call] == [
            "t4", "t5", "t6", "t7",
        ]  # fmt: skip


async def test_one_bad_text_does_not_fail_those_of_others(tmp_path: Path) -> None:
    table = {**OLLAMA, "concurrency": 1}
    async with world(tmp_path, embedd=providers(o=table)) as w:
        await w.ollama.script(
            ScriptRule(path="/api/embed", contains="hold", delay_s=0.3),
            ScriptRule(path="/api/embed", contains="poison", status=400, error="bad", times=None),
        )
        holder = asyncio.create_task(embed(w, "hold"))
        while not await w.texts_received():
            await asyncio.sleep(0.005)
        answers = await asyncio.gather(embed(w, "good", "fine"), embed(w, "poison"), embed(w, "x"))
        assert [a.status_code for a in answers] == [200, 400, 200]
        assert (await holder).status_code == 200


async def test_a_model_pulled_anew_has_another_id_and_other_vectors(tmp_path: Path) -> None:
    table = {**OLLAMA, "digest_ttl_s": 0}
    async with world(tmp_path, embedd=providers(o=table)) as w:
        first = (await embed(w, "a")).json()
        tags = (
            '{"models": [{"name": "fake-embed:latest", "model": "fake-embed:latest", '
            f'"digest": "{"ab" * 32}"}}]}}'
        )
        await w.ollama.script(ScriptRule(path="/api/tags", body=tags, times=None))
        second = (await embed(w, "a")).json()
        assert second["model"] == "o/fake-embed:latest@abababababab" != first["model"]
        assert len(await w.texts_received()) == 2
        pinned = await embed(w, "a", model=first["model"])
        assert pinned.status_code == 404


async def test_cached_vectors_outlive_their_provider_for_a_while(tmp_path: Path) -> None:
    table = {**OLLAMA, "digest_ttl_s": 0}
    async with world(tmp_path, embedd=providers(o=table)) as w:
        before = (await embed(w, "a")).json()
        await w.ollama.script(ScriptRule(status=503, times=None))
        assert (await embed(w, "a")).json() == before
        assert (await embed(w, "b")).status_code == 503


async def test_who_leaves_breaks_the_call_off(tmp_path: Path) -> None:
    async with world(tmp_path, embedd=providers(o=OLLAMA)) as w:
        await w.ollama.script(ScriptRule(path="/api/embed", delay_s=60))
        asking = asyncio.create_task(embed(w, "a"))
        async with asyncio.timeout(5):
            while not await w.texts_received():
                await asyncio.sleep(0.005)
            asking.cancel()
            while (await w.embedd.get("/metrics")).text.count("embedd_queued") < 1:
                await asyncio.sleep(0)
            while (await w.ollama.requests())[-1].ended == "open":
                await asyncio.sleep(0.005)
        assert (await embed(w, "a")).status_code == 200
