"""Decisions about several files as one ingest: who they are, how their columns join."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from services.ingestd.core.bundle import (
    Bundle,
    BundleFile,
    Columns,
    Piece,
    begin_again,
    close_columns,
    combine_digests,
    find_repeated,
    group_pieces,
    grow_columns,
    join_numbers,
)
from services.ingestd.core.contract import make_plan
from services.ingestd.core.job import Limits, Outcome, Part
from services.ingestd.core.naming import name_file, shorten_name
from services.ingestd.core.options import Options
from services.ingestd.core.reference import Reference, parse_reference
from services.ingestd.worker.meter import Meter, Whole
from shared.errors import Conflict, Invalid

TABLE = (("id", "BIGINT"),)
OUTCOME = Outcome((), None, 1, 1, 0, 0, (("id", "BIGINT"), ("note", "VARCHAR")), open=("note",))


def make_bundle(**options: str) -> Bundle:
    files = (BundleFile("a.csv", "/s/a", 1), BundleFile("b.csv", "/s/b", 2))
    return Bundle(files, "/w", "id", Options(**options), TABLE, Limits())  # type: ignore[arg-type]


def test_bundles_survive_the_pipe() -> None:
    bundle = make_bundle(mode="replace", contract="evolve")
    assert Bundle.from_json(json.loads(json.dumps(bundle.to_json()))) == bundle


def test_one_file_is_named_as_ever_and_several_by_their_order() -> None:
    assert combine_digests(["ab"]) == "ab"
    both = combine_digests(["ab", "cd"])
    assert len(both) == 64
    assert both != combine_digests(["cd", "ab"])
    assert both != combine_digests(["ab", "cd", "cd"])


def test_the_same_bytes_twice_are_told() -> None:
    assert find_repeated(["x", "y"], ["a", "b"]) == []
    (said,) = find_repeated(["x", "y", "x"], ["a", "b", "c"])
    assert "'c'" in said
    assert "'a'" in said
    assert len(find_repeated(["x"] * 50, ["a"] * 50)) == 11


def test_the_first_file_is_held_against_the_dataset_unless_its_schema_takes_the_place() -> None:
    assert make_bundle().first_table() == TABLE
    taking = make_bundle(mode="replace", contract="evolve")
    assert taking.first_table() is None
    assert taking.job(0, "/w/0", None).options.mode == "replace"
    # Else its own schema would take the place of the first file's.
    assert taking.job(1, "/w/1", TABLE).options.mode == "append"


def test_a_refusal_names_the_file_and_what_it_is_held_against() -> None:
    error = Conflict("The file has no column 'x'.", details={"columns": []})
    told = make_bundle().blame(error, 1)
    assert isinstance(told, Conflict)
    assert told.message == "File 2 of 2, 'b.csv': The file has no column 'x'."
    assert told.details == {"file": "b.csv", "file_number": 2, "columns": []}
    told = replace(make_bundle(), table=None).blame(error, 1)
    assert told.message.endswith("those of the files before it.")


def test_an_open_column_takes_the_type_of_who_fills_it() -> None:
    grown = grow_columns(OUTCOME)
    assert grown == (("id", "BIGINT"), ("note", ""))
    assert close_columns(grown) == (("id", "BIGINT"), ("note", "VARCHAR"))
    plan = make_plan(["id", "note"], grown, "freeze", "append")
    assert [one.target is None for one in plan.columns] == [False, True]
    with pytest.raises(Conflict) as refused:
        make_plan(["id"], grown, "freeze", "append")
    assert refused.value.details["columns"] == [
        {"column": "note", "problem": "missing", "expected": None}
    ]


@pytest.mark.parametrize(
    ("expected", "found", "joined"),
    [
        ("BIGINT", "DECIMAL(18,2)", "DECIMAL(18,2)"),
        ("BIGINT", "DECIMAL(38,2)", "DECIMAL(38,2)"),
        ("DECIMAL(18,1)", "DECIMAL(18,3)", "DECIMAL(18,3)"),
        ("DECIMAL(38,1)", "DECIMAL(18,3)", "DECIMAL(38,3)"),
        ("BIGINT", "DOUBLE", "DOUBLE"),
        ("DECIMAL(18,2)", "DOUBLE", "DOUBLE"),
        ("DECIMAL(18,3)", "DECIMAL(18,2)", None),
        ("BIGINT", "BIGINT", None),
        ("BIGINT", "VARCHAR", None),
        ("DOUBLE", "DECIMAL(18,2)", None),
        ("DATE", "TIMESTAMP", None),
        ("no such column", "BIGINT", None),
    ],
)
def test_numbers_join(expected: str, found: str, joined: str | None) -> None:
    assert join_numbers(expected, found) == joined


def test_what_a_dataset_says_is_never_widened_by_beginning_again() -> None:
    found = (("id", "BIGINT"), ("rate", "BIGINT"), ("role", "VARCHAR"))
    wider = {"id": "DOUBLE", "rate": "DECIMAL(18,2)"}
    assert begin_again(TABLE, found, wider) == (
        ("id", "BIGINT"),
        ("rate", "DECIMAL(18,2)"),
        ("role", ""),
    )


def make_piece(size: int, columns: Columns = TABLE) -> Piece:
    return Piece(Part("/p", "ab", size, 1), columns)


def test_small_neighbours_become_one_part_and_large_ones_stay() -> None:
    limits = Limits(part_bytes=100)
    small, large, odd = make_piece(20), make_piece(30), make_piece(30, (("id", "INTEGER"),))
    found = group_pieces([small, small, large, small, odd, small, small], TABLE, limits)
    assert [[piece.part.size for piece in group] for group in found] == [
        [20, 20],
        [30],
        [20, 30],
        [20, 20],
    ]
    shapes = [make_piece(0, ((f"c{number}", "DATE"),)) for number in range(100)]
    assert [len(group) for group in group_pieces(shapes, TABLE, limits)] == [64, 36]


def test_progress_is_that_of_all_files_and_never_goes_back() -> None:
    meter = Meter()
    meter.begin_file(Whole(100, 0, 300, 0, 0, 0, 2))
    assert meter.look() == {
        "bytes_read": 0, "bytes_total": 300, "rows": 0, "rejects": 0,
        "files_done": 0, "files_total": 2,
    }  # fmt: skip
    meter.follow(10, lambda: 5, lambda: 7, lambda: 1)
    assert (meter.look()["bytes_read"], meter.look()["rows"]) == (50, 7)
    meter.follow(10, lambda: 1)
    assert meter.look()["bytes_read"] == 50
    meter.begin_file(Whole(200, 100, 300, 9, 2, 1, 2))
    meter.follow(400, lambda: 100, lambda: 3)
    found = meter.look()
    assert (found["bytes_read"], found["rows"], found["rejects"]) == (150, 12, 2)
    assert found["files_done"] == 1


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.csv", "a.csv"),
        ("C:\\data\\a.csv", "a.csv"),
        ("../../etc/a.csv", "a.csv"),
        ("bl\u00e5.csv".encode().decode("latin-1"), "bl\u00e5.csv"),
        ("a\r\n.csv", "a.csv"),
        ("a%22b%22.csv", 'a"b".csv'),
        ("", "file-3"),
        (None, "file-3"),
        ("folder/", "file-3"),
    ],
)
def test_files_are_named_without_folders(given: str | None, name: str) -> None:
    assert name_file(given, 3) == name


def test_a_long_name_keeps_its_end() -> None:
    name = shorten_name("x" * 300 + ".csv")
    assert len(name) == 255
    assert name.endswith(".csv")


def test_a_reference_names_objects_beneath_uploads() -> None:
    one = parse_reference(b'{"object": "uploads/a b.csv"}', 2)
    assert one == Reference(("uploads/a b.csv",))
    assert one.name == "uploads/a b.csv"
    several = parse_reference(b'{"objects": ["uploads/b", "uploads/a"]}', 2)
    assert several == Reference(("uploads/b", "uploads/a"))
    assert several.name is None
    prefix = parse_reference(b'{"prefix": "uploads/2026-"}', 2)
    assert prefix == Reference(prefix="uploads/2026-")
    assert prefix.name == "uploads/2026-"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"id,name",
        b"[]",
        b'"uploads/x"',
        b"{}",
        b'{"object": 1}',
        b'{"object": "uploads/"}',
        b'{"object": "datasets/x.parquet"}',
        b'{"object": "_vectors/x"}',
        b'{"object": "uploads/x", "delimiter": ","}',
        b'{"objects": []}',
        b'{"objects": "uploads/x"}',
        b'{"objects": ["uploads/x", 1]}',
        b'{"objects": ["uploads/x", "datasets/y"]}',
        b'{"objects": ["uploads/x", "uploads/x"]}',
        b'{"objects": ["uploads/x", "uploads/y", "uploads/z"]}',
        b'{"object": "uploads/x", "objects": ["uploads/y"]}',
        b'{"prefix": "datasets/"}',
        b'{"prefix": "upl"}',
        b'{"prefix": 1}',
    ],
)
def test_what_is_no_reference(body: bytes) -> None:
    with pytest.raises(Invalid):
        parse_reference(body, 2)
