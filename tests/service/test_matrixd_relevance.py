"""The relevance filter with the real model, on the staffing set that no weight was fitted on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from services.embedd.store.minilm import MiniLM
from services.matrixd.core.relevance import judge
from shared.daemons import ROOT
from shared.sections.embed import LocalEmbedder

LISTS = [
    json.loads(line)
    for line in (ROOT / "tests" / "reality" / "staffing_relevance.jsonl").read_text().splitlines()
]


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """Every text's vector, by the model that embedd serves."""
    model = MiniLM(None, LocalEmbedder().sha256)
    model.load()
    texts = [t for one in LISTS for t in (one["query"], *one["relevant"], *one["distractors"])]
    found: dict[str, np.ndarray] = {}
    for start in range(0, len(texts), 8):
        some = texts[start : start + 8]
        for text, entry in zip(some, model.embed(model.encode(some)), strict=True):
            found[text] = np.frombuffer(entry.vector, "<f4").astype(np.float64)
    return found


def test_it_keeps_the_relevant_drops_the_adjacent_and_beats_a_cut_off(
    vectors: dict[str, np.ndarray],
) -> None:
    kept: list[bool] = []
    right: list[bool] = []
    cosines: list[float] = []
    for one in LISTS:
        texts = [*one["relevant"], *one["distractors"]]
        matrix = np.stack([vectors[text] for text in texts])
        verdicts = judge(one["query"], vectors[one["query"]], texts, matrix)
        kept += [verdict.kept for verdict in verdicts]
        right += [True] * len(one["relevant"]) + [False] * len(one["distractors"])
        cosines += (matrix @ vectors[one["query"]]).tolist()
    is_kept, is_right, cosine = np.array(kept), np.array(right), np.array(cosines)
    keep = is_kept[is_right].mean()
    drop = (~is_kept)[~is_right].mean()
    assert keep >= 0.97
    assert drop >= 0.70
    # The cut-off is given the line that suits it best on this very set.
    line = np.quantile(cosine[is_right], 1 - keep, method="lower")
    assert drop > (cosine[~is_right] < line).mean()
