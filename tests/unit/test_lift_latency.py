"""The playbook that the gate times is one as it is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scripts.lift import latency
from scripts.lift.edge import Found
from scripts.lift.judged import Query
from services.matrixd.core.playbook import Episode, Playbook


def make_trial() -> Any:
    dice = np.random.default_rng(1)
    queries = [Query(f"q{n}", f"text {n}", f"t{n}") for n in range(9)]
    refs = tuple(("c", f"d{n}") for n in range(60))
    figures = [{"p0": 0.9 - n / 100, "cosine": 0.9 - n / 100, "bm25": 1.0} for n in range(60)]
    found = Found(refs, b"", False, tuple(figures))

    def embed(texts: list[str]) -> list[list[float]]:
        return dice.normal(size=(len(texts), 16)).tolist()

    return SimpleNamespace(
        edge=SimpleNamespace(embed=embed),
        judged=SimpleNamespace(relevant={query.id: {"d1": 1.0, "d4": 1.0} for query in queries}),
        plan=SimpleNamespace(unseen=queries[6:]),
        repeated=queries[:3],
        held=queries[3:6],
        shown={query.id: found for query in queries},
    )


def test_timed_notes_have_all_that_recorded_ones_have(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Episode] = []
    build = Playbook.build

    def keep(episodes: Iterable[Episode]) -> Playbook:
        built.extend(episodes)
        return build(built)

    monkeypatch.setattr(Playbook, "build", keep)
    told = latency.time_playbook(make_trial(), 40)
    assert told["notes"] == 40
    assert len(built) == 39
    for episode in built:
        assert episode.shown == ()
        assert set(episode.documents) == {("c", "d1"), ("c", "d4")}
        assert episode.kin.shape == (10, len(episode.cold.refs))
        assert Episode.from_json(episode.to_json()).rated == episode.rated
