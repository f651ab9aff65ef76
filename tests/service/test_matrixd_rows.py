"""Sources over ASGI with odd rows: each is in the corpus or told of, and none stops the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.matrixd.store import builder, sources
from tests.support.matrixd import World, world

pytestmark = pytest.mark.anyio

ODD_IDS = ("..", ".", "a/../b", "a/b", "/", "%2F", "a?b#1", "#", "line\nend", "nul\0", "日本 😀")


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": {"dataset": name}, "id": "id", "text": "{text}", **more}


async def replace(w: World, body: dict[str, Any]) -> dict[str, Any]:
    asked = {"replace": True, "wait": 30}
    answer = await w.matrix.post("/matrix/corpora", params=asked, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def put_object(w: World, key: str, content: bytes) -> None:
    async with httpx.AsyncClient(
        transport=w.peers["storaged"], base_url="http://127.0.0.1"
    ) as client:
        assert (await client.put(f"/storage/objects/{key}", content=content)).is_success


async def from_lines(w: World, name: str, content: bytes, **more: Any) -> dict[str, Any]:
    """A corpus of a JSON-lines object, once its job is over."""
    await put_object(w, f"{name}.jsonl", content)
    body = {**spec(name), "source": {"objects": [f"{name}.jsonl"]}, **more}
    return (await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=body)).json()


async def test_any_text_is_an_id(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        info = await w.corpus("odd", [{"id": i, "text": f"welder {i}"} for i in ODD_IDS])
        assert (info["status"], info["job"]["error"]) == ("ready", None)
        assert sorted(await w.ids("welder", k=50)) == sorted(ODD_IDS)
        cut = await replace(w, spec("odd", chunking={"words": 8, "overlap": 2}))
        assert (cut["status"], cut["job"]["error"]) == ("ready", None)
        assert sorted(await w.ids("welder", k=50)) == sorted(ODD_IDS)


async def test_ids_that_differ_by_blanks_alone_are_two(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        names = ["A 1", "A  1", "A\t1", " A 1"]
        info = await w.corpus("odd", [{"id": i, "text": "a welder"} for i in names])
        assert info["report"]["duplicate_ids"] == 0
        assert sorted(await w.ids("welder")) == sorted(names)


async def test_a_row_nested_too_deep_is_told_and_the_others_are_in(tmp_path: Path) -> None:
    def nested(depth: int) -> bytes:
        return b"[" * depth + b"]" * depth

    lines = [
        b'{"id": "flat", "text": "a welder", "m": 1}',
        b'{"id": "fine", "text": "a welder", "m": %s}' % nested(60),
        b'{"id": "metadata", "text": "a welder", "m": %s}' % nested(300),
        b'{"id": "unread", "text": "a welder", "m": 1, "other": %s}' % nested(900),
        b'{"id": %s, "text": "a welder", "m": 1}' % nested(900),
        b'{"id": "text", "text": %s, "m": 1}' % nested(900),
        b'{"text": "no id", "m": %s}' % nested(900),
    ]
    async with world(tmp_path) as w:
        info = await from_lines(w, "deep", b"\n".join(lines), metadata=["m"])
        assert (info["status"], info["documents"]) == ("ready", 3)
        assert sorted(await w.ids("welder")) == ["fine", "flat", "unread"]
        report = info["report"]
        assert (report["unusable"], report["null_ids"]) == (3, 1)
        assert "metadata: column 'm' is nested more" in report["examples"]["unusable"][0]


async def test_a_line_too_long_is_told_and_the_others_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 100_000)
    long = json.dumps({"id": "long", "text": "x" * 500_000}).encode()
    lines = [b'{"id": "a", "text": "a welder"}', long, b'{"id": "b", "text": "a cook"}', long]
    async with world(tmp_path) as w:
        info = await from_lines(w, "lines", b"\n".join(lines))
        assert (info["status"], info["documents"], info["report"]["rows"]) == ("ready", 2, 4)
        assert info["report"]["examples"]["unusable"] == [
            "lines.jsonl:2: is longer than 100000 bytes",
            "lines.jsonl:4: is longer than 100000 bytes",
        ]


async def test_the_mark_before_a_file_s_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        content = b'\xef\xbb\xbf{"id": "a", "text": "a welder"}\r\n{"id": "b", "text": "a cook"}'
        info = await from_lines(w, "marked", content)
        assert (info["documents"], info["report"]["unusable"]) == (2, 0)


@pytest.mark.parametrize(
    ("status", "content", "retry_s", "says"),
    [
        (504, b'{"error": {"code": "timeout", "message": "60 s"}}', 30, "no rows in time"),
        (200, b'{"id": "1", "text": "x"}\n{"id', 0.05, "broke off after 1 rows"),
    ],
)
async def test_a_source_that_cannot_be_read_in_time_fails_with_what_to_do(
    tmp_path: Path, status: int, content: bytes, retry_s: float, says: str
) -> None:
    class Slow(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path == "/sql" and b"LIMIT 0" not in await request.aread():
                return httpx.Response(status, stream=httpx.ByteStream(content))
            return await self.inner.handle_async_request(request)

    async with world(tmp_path, matrixd={"retry_s": retry_s}) as w:
        w.tables.put("jobs", [{"id": "1", "text": "a welder"}])
        w.peers["queryd"].inner = Slow(w.peers["queryd"].inner)
        made = await w.matrix.post("/matrix/corpora", params={"wait": 20}, json=spec("jobs"))
        error = made.json()["job"]["error"]
        assert made.json()["status"] == "failed"
        assert says in error
        assert "query_timeout_s" in error


async def test_an_object_deleted_while_its_prefix_is_read_is_not_in_the_source(
    tmp_path: Path,
) -> None:
    class Vanishing(httpx.AsyncBaseTransport):
        """Deletes an object as soon as it was listed or looked at."""

        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "GET" and request.url.path.endswith("/kb/b.md"):
                gone = httpx.Request("DELETE", request.url, headers=request.headers)
                await self.inner.handle_async_request(gone)
            return await self.inner.handle_async_request(request)

    async with world(tmp_path) as w:
        for name in "abc":
            await put_object(w, f"kb/{name}.md", b"how to weld")
        w.peers["storaged"].inner = Vanishing(w.peers["storaged"].inner)
        body = {"name": "kb", "source": {"objects": "kb/"}, "text": "{text}"}
        made = await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=body)
        assert (made.json()["status"], made.json()["job"]["error"]) == ("ready", None)
        assert sorted(await w.ids("weld")) == ["kb/a.md", "kb/c.md"]
        await put_object(w, "kb/b.md", b"how to weld")
        keys = {**body, "name": "keys", "source": {"objects": ["kb/a.md", "kb/b.md"]}}
        told = await w.matrix.post("/matrix/corpora", params={"wait": 30}, json=keys)
        assert told.json()["status"] == "failed"
        assert "kb/b.md" in told.json()["job"]["error"]


async def test_keys_without_end_are_not_all_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Any] = []
    monkeypatch.setattr(builder, "check_columns", lambda _, columns: known.append(columns))
    lines = [json.dumps({f"key{n}-{m}": 1 for m in range(100)}) for n in range(50)]
    last = json.dumps({"id": "a", "text": "a welder"})
    async with world(tmp_path) as w:
        info = await from_lines(w, "wide", "\n".join([*lines, last]).encode())
        assert (info["documents"], info["report"]["null_ids"]) == (1, 50)
        assert len(known[0]) <= 502
        assert {"id", "text"} < set(known[0])
