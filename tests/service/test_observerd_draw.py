"""Refiners fed from observed runs, and frozen while the scorer drifts, over ASGI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from services.observerd.store import drawing
from tests.support.refining import REFINER, SPEC, Matrix, observed

pytestmark = pytest.mark.anyio

KINDS = ("accepted", "rejected")
STEADY = [
    {"id": f"a{n}", "expected": KINDS[n % 2], "baseline": KINDS[n % 2], "current": KINDS[n % 2]}
    for n in range(60)
]
BENT = [{**one, "current": "accepted"} for one in STEADY]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rated runs do not wait for a search that is still on its way."""
    monkeypatch.setattr(drawing, "_LATE_S", 0.0)


async def observe(client: httpx.AsyncClient, number: int, **more: Any) -> None:
    """A search of matrixd under a run's id, and a verdict on the run."""
    run_id = f"r{number}"
    search = {
        "run_id": run_id, "mode": "matrix.search", "node_id": "matrix.search", "status": "ok",
        "task_signature": "matrix.search", "outputs": [["jobs", "b"], ["jobs", "right"]],
        "inputs": {"query": f"query {number}", "corpora": ["jobs"]}, **more.pop("search", {}),
    }  # fmt: skip
    rating = {
        "run_id": run_id, "mode": "review", "node_id": "review", "status": "ok",
        "verdict": "accepted", "scorer_status": "ok", "score": 0.9, "evidence": ["jobs/right"],
        **more,
    }  # fmt: skip
    answer = await client.post("/observer/events", json={"events": [search, rating]})
    assert answer.status_code == 200, answer.text


async def draw(client: httpx.AsyncClient, limit: int = 2000) -> dict[str, Any]:
    answer = await client.post(f"{REFINER}/draw", json={"limit": limit})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_rated_searches_become_lessons_once_and_lead_to_a_promotion(tmp_path: Path) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json=SPEC)
        for number in range(40):
            await observe(client, number)
        first = await draw(client, 10)
        assert (first["looked"], first["learnt"], first["more"]) == (10, 10, True)
        assert {search["query"] for search in matrix.searches} == {f"query {n}" for n in range(10)}
        rest = await draw(client)
        assert (rest["learnt"], rest["more"], rest["skipped"]) == (30, False, {})
        assert "promoted" in [one["kind"] for one in [*first["decisions"], *rest["decisions"]]]
        view = (await client.get(REFINER)).json()
        assert view["incumbent"] == {"lexical": 1.2, "use_playbook": False}
        assert (view["runs"], view["drawn"]) == (40, rest["after"])
        assert (await draw(client))["looked"] == 0
    asked = len(matrix.searches)
    async with observed(tmp_path, matrix) as client:
        await observe(client, 5)
        again = await draw(client)
        # The cursor is durable, and a run that is rated again still counts once.
        assert (again["looked"], again["duplicates"], len(matrix.searches)) == (1, 1, asked)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attributes": {"held_out": True}}, "held out"),
        ({"attributes": {"decision": "withheld"}}, "withheld from the playbook"),
        ({"verdict": "rejected", "evidence": []}, "verdict: rejected"),
        ({"scorer_status": "timeout"}, "unscored"),
        ({"evidence": ["jobs/elsewhere"]}, "its evidence is none of what the search showed"),
        ({"search": {"mode": "matrix.compose"}}, "no matrix.search of it was observed"),
        ({"search": {"status": "error"}}, "no matrix.search of it was observed"),
        ({"search": {"inputs": None}}, "no matrix.search of it was observed"),
        (
            {"search": {"inputs": {"query": "q", "corpora": ["others"]}}},
            "its search was over other corpora",
        ),
        ({"search": {"inputs": {"query": "q"}}}, "its search was over other corpora"),
        (
            {"search": {"inputs": {"query": "q", "corpora": ["jobs"], "filters": {"a": 1}}}},
            "its search had filters",
        ),
    ],
)
async def test_what_teaches_nothing_is_skipped_and_told(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json=SPEC)
        await observe(client, 1, **change)
        found = await draw(client)
        assert (found["learnt"], found["skipped"]) == (0, {reason: 1})
        assert matrix.searches == []


async def test_a_refiner_draws_only_from_what_it_says(tmp_path: Path) -> None:
    async with observed(tmp_path, Matrix()) as client:
        spec = {**SPEC, "observed": {"mode": "matrix.compose", "task_signature": "shifts"}}
        await client.put(REFINER, json=spec)
        for number, change in enumerate(
            (
                {},
                {"mode": "matrix.compose"},
                {"mode": "matrix.compose", "task_signature": "shifts"},
            )
        ):
            await observe(client, number, search=change)
        assert (await draw(client))["learnt"] == 1
        late = {**SPEC, "observed": {"after": 2}}
        made = await client.put("/observer/refiners/late", json=late)
        assert made.json()["drawn"] == 2
        found = (await client.post("/observer/refiners/late/draw")).json()
        # Two of the three runs came after that, and neither was a plain search.
        assert (found["looked"], found["learnt"]) == (2, 0)
        wrong = await client.put("/observer/refiners/x", json={**SPEC, "observed": {"mode": "sql"}})
        assert wrong.status_code == 400


async def test_a_rated_run_waits_for_its_search_and_a_broken_draw_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json=SPEC)
        await observe(client, 1)
        await observe(client, 2, search={"mode": "other"})
        monkeypatch.setattr(drawing, "_LATE_S", 60.0)
        held = await draw(client)
        assert (held["learnt"], held["looked"], held["more"]) == (1, 1, True)
        monkeypatch.setattr(drawing, "_LATE_S", 0.0)
        await observe(client, 3)
        matrix.down = True
        broken = await client.post(f"{REFINER}/draw")
        assert broken.status_code == 503
        assert (await client.get(REFINER)).json()["runs"] == 1
        matrix.down = False
        assert (await draw(client))["learnt"] == 1
        assert (await client.post("/observer/refiners/nobody/draw")).status_code == 404


async def test_drift_freezes_explains_and_thaws_and_a_hand_counts_for_more(tmp_path: Path) -> None:
    matrix = Matrix()
    async with observed(tmp_path, matrix) as client:
        await client.put(REFINER, json=SPEC)

        async def guard(anchors: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
            answer = await client.post(f"{REFINER}/drift", json={"anchors": anchors, **more})
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert (await guard(STEADY[:5]))["action"] == "none"
        assert (await guard(STEADY))["action"] == "none"
        frozen = await guard(BENT)
        assert (frozen["action"], frozen["drift"]["verdict"]) == ("frozen", "judge")
        assert "judged otherwise" in frozen["refiner"]["frozen"]
        assert frozen["refiner"]["decisions"][-1]["kind"] == "frozen"
        # Nothing is learnt meanwhile, and nothing is lost on it.
        await observe(client, 1)
        assert (await draw(client))["looked"] == 0
        assert (await guard(STEADY[:5]))["action"] == "none"
        assert (await guard(BENT))["action"] == "none"
    async with observed(tmp_path, matrix) as client:
        thawed = await guard(STEADY)
        assert (thawed["action"], thawed["refiner"]["frozen"]) == ("thawed", None)
        assert (await draw(client))["learnt"] == 1
        live = {
            "live_before": [{"session": f"b{n}", "verdict": "accepted"} for n in range(60)],
            "live_now": [{"session": f"n{n}", "verdict": "rejected"} for n in range(60)],
        }
        shifted = await guard(STEADY, **live)
        assert (shifted["drift"]["verdict"], shifted["action"]) == ("system", "frozen")
        await client.post(f"{REFINER}/thaw", json={"reason": "we changed the corpus"})
        await client.post(f"{REFINER}/freeze", json={"reason": "by hand"})
        kept = await guard(STEADY)
        assert (kept["action"], kept["refiner"]["frozen"]) == ("none", "by hand")
        missing = await client.post("/observer/refiners/nobody/drift", json={"anchors": []})
        assert missing.status_code == 404
        twice = await client.post(f"{REFINER}/drift", json={"anchors": [STEADY[0]] * 2})
        assert twice.status_code == 400
