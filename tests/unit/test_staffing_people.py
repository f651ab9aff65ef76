"""The generated candidates: the same every time, complete, and like the table they become."""

from __future__ import annotations

import csv
import io

from scripts.staffing_candidates import make_spec
from scripts.staffing_people import CANDIDATE_COLUMNS, generate_candidates, write_candidates
from services.matrixd.core.corpora import make_recipe
from services.matrixd.core.documents import Document
from shared.wire.matrixd import CorpusSpec


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    first = b"".join(write_candidates(4100, seed=3))
    assert first == b"".join(write_candidates(4100, seed=3))
    assert first != b"".join(write_candidates(4100, seed=4))
    rows = list(csv.reader(io.StringIO(first.decode())))
    assert tuple(rows[0]) == CANDIDATE_COLUMNS
    assert len(rows) == 4101
    assert {len(row) for row in rows} == {len(CANDIDATE_COLUMNS)}


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert list(generate_candidates(50)) == list(generate_candidates(80))[:50]


def test_every_candidate_is_a_document_of_the_drivers_corpus() -> None:
    recipe = make_recipe(CorpusSpec.model_validate(make_spec("candidates", 10)))
    rows = [dict(zip(CANDIDATE_COLUMNS, row, strict=True)) for row in generate_candidates(300)]
    made = [recipe.make(row) for row in rows]
    assert all(isinstance(one, Document) for one in made)
    assert len({one.text for one in made if isinstance(one, Document)}) > 290
