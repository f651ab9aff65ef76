"""WordNet's files as a judged set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.lift.convert import convert_wordnet
from scripts.lift.judged import JudgedSetError, load_set

LICENCE = "  1 This software and database is being provided to you\n"
MEDICAL = "a thorough physical examination of a person"
FILES = {
    "noun": LICENCE
    + "00000010 04 n 06 checkup 0 checkups 0 medical_examination 0 medical_exam 0 health_check 0 "
    f'exam 0 001 @ 00000020 n 0000 | {MEDICAL}; "he had one"\n'
    "00000020 04 n 02 exam 0 test 0 000 | a set of questions that tells what somebody knows\n"
    "00000030 04 n 04 Felis 0 genus_Felis 0 cat_genus 0 cats 0 000 | type genus of all the cats\n",
    "verb": "00000040 29 v 01 nap 0 000 01 + 02 00 | short sleep\n",
    "adj": "00000050 00 a 02 mere(a) 0 plain 0 000 | being nothing more than what is said here\n",
    "adv": LICENCE,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, text in FILES.items():
        (tmp_path / f"data.{part}").write_text(text, "utf-8")
    return tmp_path


def test_words_of_one_synset_alone_are_queries_for_its_gloss(folder: Path) -> None:
    assert convert_wordnet(folder, folder / "out") == 4
    made = load_set(folder / "out")
    # Plurals are the same word, and exam stands in two synsets.
    texts = [query.text for query in made.queries]
    assert texts == ["checkup", "medical examination", "medical exam", "health check"]
    assert {query.topic for query in made.queries} == {"noun00000010"}
    assert made.relevant["q1"] == {"noun00000010": 1.0}
    documents = {each.id: each.text for each in made.documents}
    assert documents["noun00000010"] == "A thorough physical examination of a person."
    # Names are left out, and glosses that say too little; the others are there to be found.
    assert set(documents) == {"noun00000010", "noun00000020", "adj00000050"}
    assert json.loads((folder / "out" / "set.json").read_text())["name"] == "wordnet"


def test_a_damaged_line_is_told(folder: Path) -> None:
    (folder / "data.adj").write_text("00000050 00 a zz mere 0 | gloss\n", "utf-8")
    with pytest.raises(JudgedSetError, match=r"data\.adj, line 1: not a synset"):
        convert_wordnet(folder, folder / "out")
