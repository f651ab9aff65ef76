"""A real catalogd, killed in the middle of registers, over a real storaged."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

import httpx

from scripts.private_fleet import PrivateFleet
from tests.support.catalogd import parquet_bytes

KILLS = 5
# Registers that must succeed between two kills, so that each kill meets a warm daemon.
BETWEEN = 3
PATIENCE_S = 60.0


class Sender:
    """Registers one object after another and sends each again until it is acknowledged.

    Args:
        urls: of storaged and catalogd.
        numbers: of the rows, one a register, as many as there is time for.
    """

    def __init__(self, urls: dict[str, str], numbers: range = range(1_000_000)) -> None:
        self.urls = urls
        self.numbers = numbers
        self.client = httpx.Client(trust_env=False, timeout=10)
        self.acknowledged: list[int] = []
        self.retried = 0
        self.stop = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """The thread."""
        try:
            for number in self.numbers:
                if self.stop.is_set():
                    break
                self.register(number)
                self.acknowledged.append(number)
        except BaseException as error:
            self.failure = error

    def register(self, number: int) -> None:
        """Stores and registers one object, for as long as it takes."""
        content = parquet_bytes({"x": [number]})
        stored = self.client.put(
            f"{self.urls['storaged']}/storage/objects/k{number}", content=content
        )
        stored.raise_for_status()
        body = {"name": "t", "objects": [f"k{number}"], "ingest_id": f"i{number}"}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.client.post(f"{self.urls['catalogd']}/catalog/datasets", json=body)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code in (200, 201):
                return
            assert answer is None or answer.status_code == 503, answer.text
            assert time.monotonic() < deadline, "the register never got through"
            self.retried += 1
            # A daemon that is down refuses at once; do not take the processor it needs.
            self.stop.wait(0.05)


def wait_for_more(sender: Sender, count: int) -> None:
    wanted = len(sender.acknowledged) + count
    deadline = time.monotonic() + PATIENCE_S
    while len(sender.acknowledged) < wanted:
        assert sender.failure is None, sender.failure
        assert time.monotonic() < deadline, "no register got through"
        time.sleep(0.005)


def test_killed_in_the_middle_of_registers_it_comes_back_with_each_exactly_once() -> None:
    instants = random.Random(20260201)
    quick = {"FLEET__RESTART_BACKOFF_S": "0.05", "FLEET__RESTART_BACKOFF_MAX_S": "0.1"}
    with PrivateFleet(("storaged", "catalogd"), settings=quick) as fleet:
        sender = Sender(fleet.urls)
        thread = threading.Thread(target=sender.run)
        thread.start()
        try:
            for _ in range(KILLS):
                wait_for_more(sender, BETWEEN)
                time.sleep(instants.uniform(0, 0.05))
                fleet.kill("catalogd")
            wait_for_more(sender, BETWEEN)
        finally:
            sender.stop.set()
            thread.join(PATIENCE_S)
        assert sender.failure is None, sender.failure
        assert sender.retried >= KILLS
        catalog = f"{fleet.urls['catalogd']}/catalog/datasets/t"
        files: dict[str, Any] = sender.client.get(f"{catalog}/files").json()
        rows: dict[str, Any] = sender.client.get(catalog).json()
        found = Counter(file["uri"].rpartition("/")[2] for file in files["files"])
        assert found == Counter(f"k{number}" for number in sender.acknowledged)
        assert rows["rows"] == len(sender.acknowledged)
        for number in sender.acknowledged:
            assert sender.client.get(f"{catalog}/ingests/i{number}").status_code == 200
        sender.client.close()
