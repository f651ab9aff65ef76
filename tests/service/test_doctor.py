"""scripts/doctor: the bucket, keys and tiers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.doctor_checks import check_keys, check_tiers
from scripts.doctor_storage import check_storage
from scripts.seaweed import READER, Seaweed
from tests.support.apps import make_config
from tests.support.chatd import CLOUDS, world, write_key
from tests.support.storaged import BucketPlace

pytestmark = pytest.mark.anyio


def test_keys_are_found_missing_or_open_to_others(tmp_path: Path) -> None:
    write_key(tmp_path, "kimi", "KIMI_API_KEY=sk-1\n")
    write_key(tmp_path, "opencode", "OPENCODE_API_KEY=sk-2\n", mode=0o644)
    config = make_config(tmp_path, chatd={"keys_dir": tmp_path / "keys"})
    found = {finding.what: finding for finding in check_keys(config)}
    assert (found["key kimi"].ok, found["key kimi"].found) == (True, "found")
    assert found["key openrouter"].ok
    assert not found["key opencode"].ok
    assert "chmod 600" in found["key opencode"].advice
    assert "sk-" not in str(found)


async def test_a_tier_whose_model_is_gone_is_a_fault(tmp_path: Path) -> None:
    models = {"local_fast": "small", "local_judge": "lost"}
    async with world(tmp_path, providers={"ollama": CLOUDS["ollama"]}, models=models) as w:
        # As the fleet would have it: at the port of the configuration.
        section = w.config.chatd.model_copy(update={"port": w.port})
        config = w.config.model_copy(update={"chatd": section})
        found = {f.what: f for f in await asyncio.to_thread(check_tiers, config)}
    assert found["tier local_fast"].found == "small: ok"
    assert not found["tier local_judge"].ok
    assert "ollama pull lost" in found["tier local_judge"].advice
    (away,) = await asyncio.to_thread(check_tiers, config)
    assert away.ok
    assert "not running" in away.found


def test_a_bucket_is_probed_and_left_as_it_was(tmp_path: Path, seaweed: Seaweed) -> None:
    place = BucketPlace(tmp_path, seaweed)
    found = check_storage(place.configure())
    assert [(f.what, f.ok, f.advice) for f in found] == [
        ("bucket", True, ""),
        ("bucket writes", True, ""),
        ("bucket conditions", True, ""),
        ("bucket reads", True, ""),
    ]
    assert place.keep() == []
    assert check_storage(make_config(tmp_path)) == []


def test_a_key_that_may_not_write_and_a_bucket_that_is_not_there_are_told(
    tmp_path: Path, seaweed: Seaweed
) -> None:
    place = BucketPlace(tmp_path, seaweed)
    access, secret = READER
    place.storage |= {"access_key": access, "secret_key": secret}
    found = check_storage(place.configure())
    assert [(f.what, f.ok) for f in found] == [("bucket", True), ("bucket writes", False)]
    assert "AccessDenied" in found[1].found
    assert "s3:PutObject" in found[1].advice
    assert secret not in str(found)
    (missing,) = check_storage(
        make_config(tmp_path, storage=BucketPlace(tmp_path, seaweed).storage | {"bucket": "none"})
    )
    assert not missing.ok
    (away,) = check_storage(
        make_config(tmp_path, storage=place.storage | {"endpoint": "http://127.0.0.1:9"})
    )
    assert not away.ok
    assert "whether the server runs" in away.advice


@contextmanager
def careless_server(status: int) -> Generator[str]:
    """An S3 server that obeys no condition, or answers them with `status`; gives its address."""
    kept: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.answer(200)

        def do_GET(self) -> None:
            self.answer(200, kept[self.path])

        def do_DELETE(self) -> None:
            del kept[self.path]
            self.answer(204)

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            conditional = {"If-Match", "If-None-Match"} & set(self.headers)
            if not conditional or status == 200:
                kept[self.path] = body
            self.answer(status if conditional else 200)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert kept == {}, "the probe was left behind"


@pytest.mark.parametrize(
    ("status", "ok", "told", "advice"),
    [
        (200, False, "does not obey", "honours conditional writes"),
        (501, True, "knows no If-None-Match", "run no second one"),
    ],
)
def test_a_server_that_honours_no_conditions_is_told(
    tmp_path: Path, status: int, ok: bool, told: str, advice: str
) -> None:
    with careless_server(status) as endpoint:
        storage: dict[str, Any] = {
            "backend": "s3",
            "endpoint": endpoint,
            "bucket": "lake",
            "access_key": "a",
            "secret_key": "secret-of-a-test",
        }
        found = {f.what: f for f in check_storage(make_config(tmp_path, storage=storage))}
    conditions = found["bucket conditions"]
    assert conditions.ok is ok
    assert told in conditions.found
    assert advice in conditions.advice
    assert found["bucket reads"].ok
