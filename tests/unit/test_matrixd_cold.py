"""Cold scores: comparable between corpora, and the same whatever the order."""

from __future__ import annotations

import numpy as np
import pytest

from services.matrixd.core.cold import (
    Calibration,
    Candidates,
    Probe,
    choose_probes,
    fit_calibration,
    rank_cold,
)
from services.matrixd.core.cold.strangers import STRANGERS


def make(corpus: str, *rows: tuple[str, float, float]) -> Candidates:
    ids, cosine, bm25 = zip(*rows, strict=True)
    return Candidates(corpus, ids, np.array(cosine), np.array(bm25))


PLAIN = Calibration.default()


def test_nothing_found_is_an_empty_list() -> None:
    assert rank_cold([]).refs == ()
    assert rank_cold([(Candidates("a", (), np.zeros(0), np.zeros(0)), PLAIN)]).refs == ()


def test_nearer_documents_come_first_and_are_likelier() -> None:
    found = rank_cold([(make("a", ("x", 0.3, 0), ("y", 0.8, 0), ("z", 0.5, 0)), PLAIN)])
    assert found.refs == (("a", "y"), ("a", "z"), ("a", "x"))
    assert list(found.p0) == sorted(found.p0, reverse=True)
    assert 0 < found.p0[-1] < found.p0[0] < 1


def test_words_decide_between_equally_near_documents() -> None:
    found = rank_cold([(make("a", ("x", 0.5, 1), ("y", 0.5, 9)), PLAIN)])
    assert found.refs[0] == ("a", "y")


def test_ties_go_by_corpus_and_id() -> None:
    one, other = make("b", ("1", 0.5, 0)), make("a", ("2", 0.5, 0), ("1", 0.5, 0))
    assert rank_cold([(one, PLAIN), (other, PLAIN)]).refs == (("a", "1"), ("a", "2"), ("b", "1"))


def test_order_of_corpora_and_candidates_changes_no_bit() -> None:
    dice = np.random.default_rng(3)
    parts = []
    for corpus in "abc":
        rows = [(f"{n}", float(dice.random()), float(9 * dice.random())) for n in range(40)]
        parts.append((corpus, rows, Calibration(float(dice.random()) / 2, 20.0, 90, 40)))
    straight = rank_cold([(make(corpus, *rows), scale) for corpus, rows, scale in parts])
    turned = rank_cold([(make(corpus, *rows[::-1]), scale) for corpus, rows, scale in parts[::-1]])
    assert straight.refs == turned.refs
    assert straight.p0.tobytes() == turned.p0.tobytes()


def test_a_corpus_where_all_is_near_does_not_crowd_out_the_other() -> None:
    crowded = make("crowded", *((f"{n}", 0.55 - n / 1000, 0.0) for n in range(20)))
    precise = make("precise", ("right", 0.5, 0.0), ("wrong", 0.1, 0.0))
    scales = {"crowded": Calibration(0.6, 20.0, 96, 20), "precise": Calibration(0.25, 20.0, 96, 2)}
    found = rank_cold([(crowded, scales["crowded"]), (precise, scales["precise"])])
    assert found.refs[0] == ("precise", "right")


def test_one_more_irrelevant_corpus_leaves_the_order_of_the_others() -> None:
    good = make("good", ("1", 0.7, 3.0), ("2", 0.6, 9.0), ("3", 0.5, 0.0))
    bad = make("bad", ("1", 0.1, 0.0))
    alone = rank_cold([(good, PLAIN)]).refs
    both = [ref for ref in rank_cold([(good, PLAIN), (bad, PLAIN)]).refs if ref[0] == "good"]
    assert tuple(both) == alone


def test_head_cuts_all_columns() -> None:
    found = rank_cold([(make("a", ("x", 0.3, 0), ("y", 0.8, 0)), PLAIN)]).head(1)
    assert (len(found.refs), len(found.p0), len(found.cosine), len(found.bm25)) == (1, 1, 1, 1)


DOCUMENTS = [
    (f"d{n}", f"welding plates number {n} with torch and helmet near dock") for n in range(30)
]


def test_probes_do_not_depend_on_the_order_of_documents() -> None:
    assert choose_probes(DOCUMENTS, 10) == choose_probes(DOCUMENTS[::-1], 10)


def test_probes_are_words_of_their_document_and_strangers() -> None:
    probes = choose_probes(DOCUMENTS, 10)
    texts = dict(DOCUMENTS)
    known = [probe for probe in probes if probe.id is not None]
    assert len(known) == 10
    for probe in known:
        assert 1 <= len(probe.text.split()) <= 5
        assert set(probe.text.split()) <= set(texts[probe.id or ""].split())
    assert [probe.text for probe in probes if probe.id is None] == list(STRANGERS)


def test_documents_without_words_are_not_probed() -> None:
    assert [p for p in choose_probes([("a", "- 1 2"), ("b", "")], 5) if p.id is not None] == []


def test_calibration_lies_between_right_and_strange() -> None:
    right = [(Probe(f"{n}", "x"), make("a", (f"{n}", 0.6, 30.0))) for n in range(200)]
    strange = [(Probe(None, "y"), make("a", ("7", 0.2, 0.0))) for _ in range(20)]
    found = fit_calibration([*right, *strange], 200)
    assert found.middle == pytest.approx(0.4, abs=0.02)
    assert found.lexical == pytest.approx(30, abs=1)
    assert (found.probes, found.documents) == (200, 200)


def test_too_few_probes_give_the_default() -> None:
    few = [(Probe("1", "x"), make("a", ("1", 0.9, 50.0)))] * 3
    found = fit_calibration(few, 3)
    assert (found.middle, found.lexical, found.probes) == (PLAIN.middle, PLAIN.lexical, 0)


def test_calibration_survives_json() -> None:
    found = Calibration(0.31, 22.5, 96, 1000)
    assert Calibration.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "damage", [{"version": 9}, {"middle": None}, {"middle": 7.0}, {"lexical": 0.0}]
)
def test_a_damaged_calibration_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"calibration"):
        Calibration.from_json({**PLAIN.to_json(), **damage})


def test_a_corpus_tuned_to_words_ranks_by_them_and_others_as_usual() -> None:
    meaning, words = ("m", 0.5, 0.0), ("w", 0.42, 30.0)
    usual = rank_cold([(make("a", meaning, words), PLAIN)])
    assert rank_cold([(make("a", meaning, words), PLAIN)], {"b": 9.0}).refs == usual.refs
    assert rank_cold([(make("a", meaning, words), PLAIN)], {"a": 0.0}).refs[0] == ("a", "m")
    assert rank_cold([(make("a", meaning, words), PLAIN)], {"a": 9.0}).refs[0] == ("a", "w")
    both = [(make("a", meaning, words), PLAIN), (make("b", meaning, words), PLAIN)]
    p0 = dict(zip(rank_cold(both).refs, rank_cold(both).p0, strict=True))
    tuned = rank_cold(both, {"a": 0.0})
    assert dict(zip(tuned.refs, tuned.p0, strict=True))["a", "w"] < p0["a", "w"]
