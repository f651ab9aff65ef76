"""SIGKILL at random instants of a load of PUTs: what was acknowledged is there, whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from pathlib import Path

import pytest

from tests.fleet.test_storaged_process import OBJECTS, Storaged
from tests.support.apps import make_config

ROUNDS = 25
WRITERS = 4
# From within one block to several, so that the kill meets every phase of an upload.
SIZES = (0, 1, 700, 4_096, 300_000, 1_048_576, 2_500_000)


def make_content(name: str, size: int) -> bytes:
    """Bytes that no other upload has."""
    return random.Random(name).randbytes(size) + name.encode()


class Writer(threading.Thread):
    """Puts objects one after the other until the server dies; remembers what it may rely on.

    `acknowledged` is the digest that each key is sure to have, None where a delete was
    acknowledged; `open` is the one change under way when the server died.
    """

    def __init__(self, port: int, name: str, seed: int) -> None:
        super().__init__()
        self.port = port
        self.label = name
        self.random = random.Random(seed)
        self.acknowledged: dict[str, str | None] = {}
        self.open: tuple[str, str | None] | None = None
        self.failure = ""

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        number = 0
        try:
            while True:
                number += 1
                self.change(connection, number)
        except (OSError, http.client.HTTPException):
            return  # the server is gone
        finally:
            connection.close()

    def change(self, connection: http.client.HTTPConnection, number: int) -> None:
        """One PUT of a new key, one replacing PUT, or one DELETE."""
        kind = self.random.choice(["create", "create", "replace", "delete"])
        known = [key for key, digest in self.acknowledged.items() if digest]
        key = f"{self.label}/{number % 3}/{number}.bin"
        if kind != "create" and known:
            key = self.random.choice(known)
        if kind == "delete" and known:
            self.open = (key, None)
            connection.request("DELETE", f"{OBJECTS}/{key}")
        else:
            content = make_content(f"{key}-{number}", self.random.choice(SIZES))
            self.open = (key, hashlib.sha256(content).hexdigest())
            headers = {"if-none-match": "*"} if key not in self.acknowledged else {}
            connection.request("PUT", f"{OBJECTS}/{key}", content, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status not in (200, 201):
            self.failure = f"{response.status} {answer}"
            raise OSError(self.failure)
        self.acknowledged[key] = self.open[1]
        self.open = None


def read_all(port: int, prefix: str) -> dict[str, str]:
    """The digest of every object's bytes, after checking it against its etag and size."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found: dict[str, str] = {}
    cursor = ""
    while True:
        connection.request("GET", f"{OBJECTS}?prefix={prefix}&limit=1000{cursor}")
        page = json.loads(connection.getresponse().read())
        for info in page["objects"]:
            connection.request("GET", f"{OBJECTS}/{info['key']}")
            response = connection.getresponse()
            content = response.read()
            digest = hashlib.sha256(content).hexdigest()
            assert response.getheader("etag") == info["etag"] == f'"{digest}"'
            assert len(content) == info["size"]
            found[info["key"]] = digest
        if page["next_cursor"] is None:
            connection.close()
            return found
        cursor = f"&cursor={page['next_cursor']}"


def run_rounds(storaged: Storaged) -> tuple[int, int]:
    """Loads, kills, restarts and checks; gives the changes acknowledged and uploads cut off."""
    chance = random.Random(20240229)
    kept: dict[str, str] = {}
    caught_in_staging = 0
    changes = 0
    for round_number in range(ROUNDS):
        writers = [
            Writer(storaged.port, f"r{round_number:02}/w{n}", chance.getrandbits(32))
            for n in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        # Not a wait for anything: the instant of the kill is what varies.
        time.sleep(chance.uniform(0.01, 0.4))
        storaged.process.kill()
        storaged.process.wait()
        for writer in writers:
            writer.join()
            assert not writer.failure
        caught_in_staging += len(storaged.leftovers())

        storaged.process = storaged.launch()
        assert storaged.leftovers() == []
        found = read_all(storaged.port, f"r{round_number:02}/")
        expected: dict[str, str | None] = {}
        for writer in writers:
            expected.update(writer.acknowledged)
            changes += len(writer.acknowledged)
            if writer.open is not None:
                key, digest = writer.open
                # The last change may have happened or not, but never by halves.
                assert found.get(key) in (expected.get(key), digest)
                expected[key] = found.get(key)
        assert found == {key: digest for key, digest in expected.items() if digest}
        kept.update(found)
        folders = [path for path in (storaged.data / "objects").rglob("*") if path.is_dir()]
        assert all(any(folder.iterdir()) for folder in folders)
    assert read_all(storaged.port, "") == kept
    return changes, caught_in_staging


# 25 starts of a process, on a machine that may be busy.
@pytest.mark.timeout(400)
def test_kill_at_any_instant_loses_nothing_acknowledged(tmp_path: Path) -> None:
    storaged = Storaged(tmp_path, make_config(tmp_path))
    try:
        changes, caught_in_staging = run_rounds(storaged)
        storaged.stop()
    finally:
        storaged.process.kill()
        storaged.process.wait()
    # The load was a load, and kills did meet uploads half way.
    assert changes > ROUNDS * 5
    assert caught_in_staging > 0
