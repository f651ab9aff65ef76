"""ICD-10-CM's tabular list as a judged set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.lift.convert import convert_icd
from scripts.lift.judged import JudgedSetError, load_set

LIST = """<?xml version="1.0"?>
<ICD10CM.tabular><chapter><name>4</name><desc>Endocrine (E00-E89)</desc>
<section id="E00"><desc>Disorders of thyroid gland (E00-E07)</desc>
<diag><name>E06</name><desc>Thyroiditis</desc>
 <diag><name>E06.3</name><desc>Autoimmune thyroiditis</desc>
  <inclusionTerm><note>Hashimoto's disease</note><note>Struma lymphomatosa</note>
   <note>Autoimmune thyroiditis NOS</note><note>Lymphoid goitre</note><note>Goitre, lymphoid</note>
  </inclusionTerm>
  <includes><note>Hashitoxicosis</note></includes></diag>
 <diag><name>E06.9</name><desc>Thyroiditis, unspecified</desc>
  <inclusionTerm><note>Swelling</note></inclusionTerm></diag></diag>
<diag><name>E07</name><desc>Other disorders</desc>
 <inclusionTerm><note>Swelling</note><note>One</note><note>Two</note><note>Three</note>
 </inclusionTerm></diag>
</section></chapter></ICD10CM.tabular>
"""


def test_terms_of_one_code_alone_are_queries_for_it(tmp_path: Path) -> None:
    source = tmp_path / "tabular.xml"
    source.write_text(LIST, "utf-8")
    assert convert_icd(source, tmp_path / "out") == 4
    made = load_set(tmp_path / "out")
    # The code's own words are no query, nor the same words in another order, nor what two have.
    assert [query.text for query in made.queries] == [
        "Hashitoxicosis",
        "Hashimoto's disease",
        "Struma lymphomatosa",
        "Lymphoid goitre",
    ]
    assert {query.topic for query in made.queries} == {"E06.3"}
    assert made.relevant["q0"] == {"E06.3": 1.0}
    texts = {each.id: each.text for each in made.documents}
    assert texts["E06.3"] == "Autoimmune thyroiditis; Thyroiditis; Disorders of thyroid gland."
    assert set(texts) == {"E06", "E06.3", "E06.9", "E07"}
    assert json.loads((tmp_path / "out" / "set.json").read_text())["name"] == "icd10cm"


@pytest.mark.parametrize("text", ["<broken", "<other/>"])
def test_another_file_is_told(tmp_path: Path, text: str) -> None:
    source = tmp_path / "other.xml"
    source.write_text(text, "utf-8")
    with pytest.raises(JudgedSetError, match=r"other\.xml: (not XML|no <section>)"):
        convert_icd(source, tmp_path / "out")
