"""Every route of every daemon, from its own OpenAPI: whatever is sent, the answer is never a 5xx.

Bodies, parameters and headers are generated from the schema, both as it allows and as it
forbids, by Schemathesis. Half of the requests name things that exist, so that more than the
404s is tried.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from shared.daemons import BUILT, ROOT

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
from scripts.private_fleet import PrivateFleet

ARROW = "application/vnd.apache.arrow.stream"
KNOWN = "known"
EXAMPLES = 25
# A request may ask for less time than any answer takes.
EXPECTED: dict[str, frozenset[int]] = {"queryd": frozenset({504})}


@schemathesis.serializer(ARROW)
def _as_arrow(_: Any, value: Any) -> bytes:
    """No generator knows Arrow: what it made for JSON is sent as bytes that are no stream."""
    return repr(value).encode()


@pytest.fixture(scope="module")
def fleet() -> Iterator[PrivateFleet]:
    # No Ollama runs here: what a bare model name means is the fleet's own.
    own = "CHATD__PROVIDERS__OLLAMA"
    with PrivateFleet(settings={f"{own}__URL": '""', f"{own}__DAEMON": "fake_ollama"}) as made:
        _fill(made)
        yield made


def _fill(fleet: PrivateFleet) -> None:
    """One of everything under the name `known`."""
    with httpx.Client(base_url=fleet.urls["gateway"] + "/v1", timeout=60) as client:
        done = [
            client.put(f"/storage/objects/{KNOWN}", content=b"some bytes"),
            client.post(f"/ingest?dataset={KNOWN}", content="id,text\n1,an oak\n2,a pine\n",
                        headers={"content-type": "text/csv"}),
            client.post("/vectors/indexes", json={"name": KNOWN, "dim": 2}),
            client.put(f"/vectors/indexes/{KNOWN}/items", json={"items": [
                {"id": KNOWN, "vector": [1.0, 2.0], "text": "an oak"}]}),
            client.post("/pathway/traces", json={"id": KNOWN, "content": {"a": 1}, "text": "oak"}),
            client.post("/matrix/corpora?wait=50", json={
                "name": KNOWN, "source": {"dataset": KNOWN}, "id": "id", "text": "{text}"}),
            client.post("/observer/events", json={"run_id": KNOWN, "status": "ok"}),
            client.post("/observer/workflows/runs", json={
                "name": KNOWN, "run_id": KNOWN, "nodes": [{"id": "a", "mode": "fixture.echo"}]}),
        ]  # fmt: skip
    assert [(one.url.path, one.text) for one in done if one.is_error] == []


def _operations(name: str, url: str) -> list[Any]:
    """What the daemon's own document offers; those that delete come last."""
    spec = httpx.get(f"{url}/openapi.json").raise_for_status().json()
    found = [one.ok() for one in schemathesis.openapi.from_dict(spec).get_all_operations()]
    if name == "gateway":
        # What it relays is tried at the daemons themselves, where faults are easier to read.
        found = [one for one in found if not one.path.startswith("/v1/")]
    gone = ("DELETE", "retire", "reset")
    return sorted(found, key=lambda one: any(word in one.label for word in gone))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUILT)
def test_no_request_is_answered_by_a_5xx(fleet: PrivateFleet, name: str) -> None:
    url = fleet.urls[name]
    statuses: Counter[int] = Counter()
    for operation in _operations(name, url):
        for mode in GenerationMode:
            _try(operation, mode, url, EXPECTED.get(name, frozenset()), statuses)
    assert statuses
    assert httpx.get(f"{url}/ready").status_code == 200
    log = fleet.command("logs", name, "-n", "2000").stdout
    assert "Unhandled error" not in log, log[-3000:]


def _try(
    operation: Any, mode: GenerationMode, url: str, expected: frozenset[int], seen: Counter[int]
) -> None:
    chance = random.Random(operation.label)

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        for key in case.path_parameters or {}:
            if chance.random() < 0.5:
                case.path_parameters[key] = KNOWN
        answer = case.call(base_url=url, timeout=30)
        seen[answer.status_code] += 1
        shown = (case.as_curl_command()[:2000], answer.status_code, answer.text[:500])
        assert answer.status_code < 500 or answer.status_code in expected, shown
        if answer.status_code >= 400 and case.method != "HEAD":
            error = answer.json()["error"]
            assert error if isinstance(error, str) else error["message"], shown

    # Nothing wrong can be sent to a route that takes nothing.
    vain = Unsatisfiable if mode is GenerationMode.NEGATIVE else ()
    with contextlib.suppress(vain):
        send()
