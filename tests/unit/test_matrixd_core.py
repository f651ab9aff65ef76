"""matrixd's decisions about corpora: templates, documents, chunks, specs, candidates."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.matrixd.core.candidates import collapse
from services.matrixd.core.chunking import item_ids, split_item_id, split_text
from services.matrixd.core.corpora import (
    State,
    all_columns,
    check_same,
    check_spec,
    describe,
    make_recipe,
    quote,
    read_datasets,
    read_statement,
)
from services.matrixd.core.documents import MAX_ID, Account, Document
from services.matrixd.core.templates import check_columns, parse_template, to_text
from shared.errors import Conflict, Invalid
from shared.wire.matrixd import CorpusSpec, Job


def spec(**more: object) -> CorpusSpec:
    base = {"name": "w", "source": {"dataset": "workers"}, "id": "id", "text": "{role} in {city}"}
    return CorpusSpec.model_validate({**base, **more})


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{role} in {city}", {"role": "Welder", "city": "Oslo"}, "Welder in Oslo"),
        ("{role}, {level} in {city}", {"role": "Welder", "city": "Oslo"}, "Welder, in Oslo"),
        ("{role} in {city}", {"role": None, "city": " "}, ""),
        ("{{literal}} {n}", {"n": 3.0}, "{literal} 3"),
        ("summary", {"summary": "all of it"}, "all of it"),
        ("{tags}", {"tags": ["a", None, "b"]}, "a, b"),
        ("{a b.c}", {"a b.c": True}, "true"),
    ],
)
def test_templates_make_texts(template: str, row: dict[str, object], text: str) -> None:
    assert parse_template(template, "text").render(row) == text


@pytest.mark.parametrize(
    "template", ["{role", "role}", "{}", "no column here", "{{role}}", "{a{b}}"]
)
def test_bad_templates_are_told(template: str) -> None:
    with pytest.raises(Invalid, match="text"):
        parse_template(template, "text")


def test_unknown_columns_are_named_with_what_is_near() -> None:
    with pytest.raises(Invalid, match=r"'rolle'.*did you mean role") as caught:
        check_columns({"text": ["rolle", "city"], "metadata": ["zip"]}, ["role", "city"])
    assert caught.value.details["unknown"] == {"text": ["rolle"], "metadata": ["zip"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (False, "false"), (2.5, "2.5"), (7, "7"), ({"a": 1}, '{"a": 1}')],
)
def test_values_read_as_in_a_sentence(value: object, text: str) -> None:
    assert to_text(value) == text


def test_rows_become_documents_or_are_accounted_for() -> None:
    recipe = make_recipe(spec(metadata=["state"]))
    made = recipe.make({"id": 7, "role": "Welder", "city": "Oslo", "state": None})
    assert isinstance(made, Document)
    assert (made.id, made.text, made.metadata) == ("7", "Welder in Oslo", {"state": None})
    assert recipe.make({"id": None, "role": "x", "city": "y", "state": 1})[0] == "null_ids"
    assert recipe.make({"id": "8", "role": None, "city": "", "state": 1}) == ("empty_texts", "8")
    assert recipe.make({"id": "9" * (MAX_ID + 1), "role": "x", "city": "y"})[0] == "unusable"
    assert (
        recipe.make({"id": "9", "role": "x", "city": "y", "state": "z" * 70_000})[0] == "unusable"
    )


def test_a_document_has_another_hash_when_anything_of_it_changes() -> None:
    row = {"id": 7, "role": "Welder", "city": "Oslo", "state": "NO"}
    recipe = make_recipe(spec(metadata=["state"]))
    chunked = make_recipe(spec(metadata=["state"], chunking={"words": 50}))

    def digest(made: object) -> str:
        assert isinstance(made, Document)
        return made.hash

    assert digest(recipe.make(row)) == digest(recipe.make(dict(reversed(row.items()))))
    others = [
        recipe.make({**row, "city": "Bergen"}),
        recipe.make({**row, "state": "SE"}),
        chunked.make(row),
    ]
    assert len({digest(recipe.make(row)), *map(digest, others)}) == 4


def test_an_account_adds_up_and_shows_a_few_examples() -> None:
    account = Account(rows=9, documents=2)
    for number in range(7):
        account.leave_out("null_ids", f"row {number}")
    told = account.tell()
    assert told.rows == told.documents + told.null_ids
    assert told.examples["null_ids"] == [f"row {n}" for n in range(5)]


def test_long_texts_are_cut_into_windows_that_overlap() -> None:
    words = [f"w{n}" for n in range(25)]
    pieces = split_text(" ".join(words), 10, 2)
    assert [piece.split()[0] for piece in pieces] == ["w0", "w8", "w15"]
    assert all(len(piece.split()) == 10 for piece in pieces)
    assert set(" ".join(pieces).split()) == set(words)
    assert split_text(" a b ", 10, 2) == ["a b"]
    assert split_text("a  b\nc d", 8, 0) == ["a  b\nc d"]


def test_item_ids_carry_the_chunk_only_where_there_are_chunks() -> None:
    assert item_ids("a#b", 2, True) == ["a#b#0", "a#b#1"]
    assert split_item_id("a#b#1", True) == ("a#b", 1)
    assert item_ids("a#b", 1, False) == ["a#b"]
    assert split_item_id("a#b", False) == ("a#b", None)


def test_chunks_collapse_to_their_document_with_the_best_of_each_score() -> None:
    found = collapse(["x#0", "y#0", "x#1"], [0.5, 0.4, 0.7], [3.0, 0.0, 1.0], True)
    assert [(f.id, f.cosine, f.bm25, f.item, f.chunk) for f in found] == [
        ("x", 0.7, 3.0, 2, 1),
        ("y", 0.4, 0.0, 1, 0),
    ]
    plain = collapse(["x#0", "y"], [0.5, 0.4], [3.0, 0.0], False)
    assert [(f.id, f.chunk) for f in plain] == [("x#0", None), ("y", None)]


def test_statements_quote_names_and_end_comments() -> None:
    dataset = spec(source={"dataset": 'we"ird'})
    assert read_statement(dataset, ["a", 'b"c', "a"]) == 'SELECT "a", "b""c" FROM "we""ird"'
    sql = spec(source={"sql": "select 1 as id -- note;"})
    assert read_statement(sql) == "SELECT * FROM (select 1 as id -- note\n) AS source LIMIT 0"
    assert quote("x") == '"x"'


def test_datasets_that_a_corpus_reads() -> None:
    known = ["orders", "workers", "workers_old"]
    assert read_datasets(spec(), known) == ["workers"]
    joined = spec(source={"sql": 'select * from "Workers" w join orders using (id)'})
    assert read_datasets(joined, known) == ["orders", "workers"]


def test_the_same_spec_means_the_same_corpus_and_another_names_the_difference() -> None:
    check_same(spec(), spec(metadata=[]))
    with pytest.raises(Conflict, match="another text, metadata") as caught:
        check_same(spec(), spec(text="{role}", metadata=["a"]))
    assert caught.value.details["differences"]["text"]["asked"] == "{role}"
    assert all_columns(make_recipe(spec(metadata=["city", "z"]))) == ["id", "role", "city", "z"]


@pytest.mark.parametrize(
    "source", [{}, {"dataset": "a", "sql": "b"}, {"dataset": "a", "format": "jsonl"}]
)
def test_a_source_is_exactly_one_thing(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        spec(source=source)


def test_specs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(Invalid, match="on_ingest follows datasets"):
        check_spec(spec(source={"objects": "docs/"}, refresh="on_ingest"))
    with pytest.raises(Invalid, match="which column tells the rows apart"):
        check_spec(
            CorpusSpec.model_validate({"name": "w", "source": {"dataset": "d"}, "text": "{a}"})
        )
    with pytest.raises(ValidationError):
        spec(chunking={"words": 10, "overlap": 6})


def test_a_corpus_is_ready_from_its_first_build_on() -> None:
    state = State(job=Job(status="running"), created_at="t")
    assert describe(spec(), "u1", state).status == "building"
    assert describe(spec(), "u1", state).index == "corpus-w-u1"
    failed = state.model_copy(update={"job": Job(status="failed")})
    assert describe(spec(), "u1", failed).status == "failed"
    assert describe(spec(), "u1", failed.model_copy(update={"built": True})).status == "ready"
