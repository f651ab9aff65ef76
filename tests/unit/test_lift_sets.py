"""Judged sets for playbook_lift: read, refused with a reason, planned, converted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from scripts.lift.convert import convert_clinc, convert_esco, convert_stackfaq
from scripts.lift.judged import JudgedSetError, load_set
from scripts.lift.planning import choose_sizes, make_plan
from scripts.lift.staffing import build_staffing_set

# Words that carry no content, for the comparison of paraphrases.
STOP = set(
    "a an the for to of in on with who and or is be as at by it its that this our we from into up "
    "down his their them they can could able someone somebody person people want wanted need "
    "needed needs whose what which not through each every where when while out over has have had "
    "doing does do used using use uses one two under before those are about after off worker "
    "staff job help helper".split()
)


def write_set(
    folder: Path,
    documents: Iterable[object] = ({"_id": "d1", "text": "one"}, {"_id": "d2", "text": "two"}),
    queries: Iterable[object] = ({"_id": "q1", "text": "1?"},),
    qrels: str = "q1\td1\t1\n",
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, records in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "qrels.tsv").write_text(qrels)
    return folder


def test_a_plain_set_is_read(tmp_path: Path) -> None:
    found = load_set(write_set(tmp_path / "mine", qrels="query-id\tcorpus-id\tscore\nq1\td1\t2\n"))
    assert found.name == "mine"
    assert found.relevant == {"q1": {"d1": 2.0}}
    assert found.corpora == ["documents"]
    assert found.queries[0].topic == "query q1"


def test_titles_corpora_topics_and_extras_are_taken(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path,
        [{"_id": 1, "title": "T", "text": "x", "corpus": "a"}, {"_id": "2", "title": "U"}],
        [{"_id": "q1", "text": "1?", "topic": "t"}],
        "q1\t0\t1\t1\n",
    )
    (folder / "qrels.tsv").rename(folder / "test.tsv")
    (folder / "qrels").mkdir()
    (folder / "test.tsv").rename(folder / "qrels" / "test.tsv")
    (folder / "far.txt").write_text("why?\n\nhow?\n")
    (folder / "set.json").write_text('{"name": "n", "paraphrase_headroom": 0.4}')
    found = load_set(folder)
    assert [d.text for d in found.documents] == ["T. x", "U"]
    assert found.corpora == ["a", "documents"]
    assert found.group_topics()["t"][0].id == "q1"
    assert (found.name, found.demands, found.far) == (
        "n",
        {"paraphrase_headroom": 0.4},
        ("why?", "how?"),
    )


def test_strays_are_told_and_left_out(tmp_path: Path) -> None:
    queries = [{"_id": "q1", "text": "1?"}, {"_id": "q2", "text": "2?"}]
    found = load_set(
        write_set(tmp_path, queries=queries, qrels="q1\td1\t1\nq9\td1\t1\nq2\td1\t0\n")
    )
    assert set(found.relevant) == {"q1"}
    assert any("1 judgments" in remark for remark in found.remarks)
    assert any("1 of 2 queries" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"documents": [["no object"]]}, r"corpus.jsonl, line 1: not an object"),
        ({"documents": [{"text": "x"}]}, r"corpus.jsonl, line 1: _id is missing"),
        ({"documents": [{"_id": "a"}]}, r"line 1: text is missing"),
        ({"documents": []}, r"corpus.jsonl: no records"),
        ({"documents": [{"_id": "a", "text": "x"}] * 2}, r"1 _id more than once, such as a"),
        ({"queries": [{"_id": "q", "text": 1.5}]}, r"queries.jsonl, line 1: text is not a text"),
        ({"qrels": "q1 d1 1\n"}, r"qrels.tsv, line 1: 1 columns"),
        ({"qrels": "q1\td1\tyes\n"}, r"line 1: the score 'yes' is no number"),
        ({"qrels": "q1\td1\tinf\n"}, r"line 1: the score 'inf' is no finite number"),
        ({"qrels": "q1\td1\tnan\n"}, r"line 1: the score 'nan' is no finite number"),
        ({"qrels": "q8\td1\t1\n"}, r"no query has a relevant document"),
    ],
)
def test_a_malformed_set_is_refused_by_file_and_line(
    tmp_path: Path, files: dict[str, object], told: str
) -> None:
    with pytest.raises(JudgedSetError, match=told):
        load_set(write_set(tmp_path, **files))  # type: ignore[arg-type]


def test_what_collections_and_spreadsheets_leave_in_files_is_read(tmp_path: Path) -> None:
    documents = [{"_id": "d 1", "text": "one"}, {"_id": "d2", "title": "", "text": " "}]
    queries = [{"_id": "q 1", "text": "1?"}]
    folder = write_set(tmp_path, documents, queries, "q 1 \td 1\t 1\n")
    for file in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        path = folder / file
        path.write_text(path.read_text().replace("\n", "\r\n"), "utf-8-sig")
    found = load_set(folder)
    assert [document.id for document in found.documents] == ["d 1"]
    assert found.relevant == {"q 1": {"d 1": 1.0}}
    assert found.remarks == ("1 documents have neither title nor text: left out",)


def test_documents_alone_are_enough_where_a_model_judges(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    for file in ("queries.jsonl", "qrels.tsv"):
        (folder / file).unlink()
    with pytest.raises(JudgedSetError, match=r"no queries.jsonl, no qrels.tsv"):
        load_set(folder)
    found = load_set(folder, labels=False)
    assert [document.id for document in found.documents] == ["d1", "d2"]
    assert found.group_topics() == {}
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(JudgedSetError, match=r"no corpus.jsonl"):
        load_set(folder, labels=False)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels.tsv", "far.txt"])
def test_a_file_that_is_not_utf8_is_told(tmp_path: Path, file: str) -> None:
    folder = write_set(tmp_path)
    (folder / file).write_bytes("q1\td\xe9\t1\n".encode("latin-1"))
    with pytest.raises(JudgedSetError, match=f"{file}: not UTF-8"):
        load_set(folder)


def test_missing_files_and_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(JudgedSetError, match="is not a folder"):
        load_set(tmp_path / "nowhere")
    (tmp_path / "corpus.jsonl").write_text("{")
    with pytest.raises(JudgedSetError, match=r"no queries.jsonl, no qrels.tsv"):
        load_set(tmp_path)
    with pytest.raises(JudgedSetError, match=r"line 1: not JSON"):
        load_set(_complete(tmp_path))


def _complete(folder: Path) -> Path:
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
    (folder / "qrels.tsv").write_text("q\td\t1\n")
    return folder


def make_topics(tmp_path: Path, topics: int, each: int) -> Path:
    queries = [
        {"_id": f"q{t}-{n}", "text": f"{t} {n}", "topic": f"t{t}"}
        for t in range(topics)
        for n in range(each)
    ]
    qrels = "".join(f"q{t}-{n}\td1\t1\n" for t in range(topics) for n in range(each))
    return write_set(tmp_path, queries=queries, qrels=qrels)


def test_a_plan_keeps_recorded_held_and_unseen_apart(tmp_path: Path) -> None:
    judged = load_set(make_topics(tmp_path, 30, 5))
    plan = make_plan(judged, 3, 8, 60)
    assert plan.sizes == (1, 2, 4)
    recorded = {q.id for queries in plan.recorded.values() for q in queries}
    held = {query.id for query in plan.held.values()}
    assert not recorded & held
    assert not {query.topic for query in plan.unseen} & set(plan.recorded)
    assert {query.topic for query in plan.held.values()} == set(plan.recorded)
    assert make_plan(judged, 3, 8, 60) == plan
    assert make_plan(judged, 4, 8, 60) != plan


def test_sets_without_paraphrases_are_planned_without_them(tmp_path: Path) -> None:
    judged = load_set(make_topics(tmp_path, 12, 1))
    assert choose_sizes(judged, 8) == (1,)
    plan = make_plan(judged, 1, 8, 60)
    assert plan.held == {}
    assert len(plan.recorded) >= 4
    assert plan.unseen


def test_too_small_a_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(JudgedSetError, match="at least 4 are needed"):
        make_plan(load_set(make_topics(tmp_path, 3, 5)), 1, 8, 60)


def test_staffing_needs_are_answered_and_their_paraphrases_share_few_words() -> None:
    judged = build_staffing_set()
    topics = judged.group_topics()
    assert len(topics) >= 60
    for topic, queries in topics.items():
        assert len(queries) >= 4, topic
        words = [set(re.findall(r"[a-z0-9]+", q.text.lower())) - STOP for q in queries]
        for at, one in enumerate(words):
            for other in words[:at]:
                assert len(one & other) < 0.5 * min(len(one), len(other)), (topic, one, other)


def test_a_bad_staffing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "needs.txt"
    for text, told in (
        ("a query\n", "line 1: a query before"),
        ("? role is Welder\n", "no queries below"),
        ("? role like Welder\nx\n", "is not 'attribute"),
        ("? colour is red\nx\n", "no attribute 'colour'"),
        ("? city is Atlantis\nx\n", "no worker answers"),
    ):
        path.write_text(text)
        with pytest.raises(JudgedSetError, match=told):
            build_staffing_set(path, workers=20)


def test_published_collections_become_judged_folders(tmp_path: Path) -> None:
    esco = tmp_path / "esco.csv"
    esco.write_text(
        "conceptUri,iscoGroup,preferredLabel,altLabels,description\n"
        'http://x/1,2654,director,"head\nchief",leads\n'
        'http://x/2,8121,operator,"chief\nrunner",runs\n'
    )
    assert convert_esco(esco, tmp_path / "esco", split=True) == 2  # chief is both's
    found = load_set(tmp_path / "esco")
    assert found.corpora == ["plants", "professionals"]
    assert {query.text for query in found.queries} == {"head", "runner"}
    clinc = tmp_path / "clinc.json"
    parts = {"train": [["pay it", "pay"]], "test": [["pay this", "pay"]]}
    strange = {part: [["huh", "oos"]] for part in ("oos_test", "oos_val", "oos_train")}
    clinc.write_text(json.dumps({**parts, **strange}))
    assert convert_clinc(clinc, tmp_path / "clinc") == 1
    assert len(load_set(tmp_path / "clinc").far) == 3
    faq = tmp_path / "faq.json"
    pair = {"question": "Gmail?", "answer": ["a", "b"], "rephr": ["r", "*", None]}
    faq.write_text(json.dumps({"root": {"qapair": [pair]}}))
    assert convert_stackfaq(faq, tmp_path / "faq", far=clinc, split=True) == 1
    assert load_set(tmp_path / "faq").relevant == {"q0": {"a0": 1.0, "a1": 1.0}}
    with pytest.raises(JudgedSetError, match="not StackFAQ"):
        convert_stackfaq(clinc, tmp_path / "bad", far=None, split=False)
