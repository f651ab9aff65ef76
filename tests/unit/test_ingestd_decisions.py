"""Types, contracts, options, encodings and identities: what is decided without a file."""

from __future__ import annotations

import codecs
from dataclasses import replace

import pytest

from services.ingestd.core.checks import (
    Target,
    build_check,
    decimal_of,
    normalise_type,
    quote_name,
    quote_text,
)
from services.ingestd.core.contract import Plan, make_plan, widen
from services.ingestd.core.encoding import (
    CP1252_TABLE,
    TextCount,
    check_format,
    detect_mark,
    detect_wide,
    parse_encoding,
)
from services.ingestd.core.job import Job, Limits, Outcome, Part
from services.ingestd.core.ladder import (
    choose_type,
    describe_mixed,
    describe_offsets,
    describe_text,
    profile_values,
    spelling_of,
)
from services.ingestd.core.options import Options, make_ingest_id
from services.ingestd.core.requested import Media, check_dataset, parse_media, parse_options
from shared.errors import Conflict, Invalid, LakehouseError, UnsupportedMediaType
from shared.wire.ingestd import IngestQuery

TABLE = (("id", "BIGINT"), ("name", "VARCHAR"))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0"], "BIGINT"),
        (["1", None, ""], "BIGINT"),
        ([None, ""], "VARCHAR"),
        (["007", "1"], "VARCHAR"),
        (["-0", "1"], "DECIMAL(18,0)"),
        (["9223372036854775807", "-9223372036854775808"], "BIGINT"),
        (["9223372036854775808"], "DECIMAL(38,0)"),
        (["1" * 38], "DECIMAL(38,0)"),
        (["1" * 39], "VARCHAR"),
        (["1.10", "2"], "DECIMAL(18,2)"),
        ([".5", "-.25"], "DECIMAL(18,2)"),
        (["123456789012345678.9"], "DECIMAL(38,1)"),
        (["0.1", "0.30000000000000004", "1000"], "DOUBLE"),
        (["0.1000000000000000055511"], "DECIMAL(38,22)"),
        (["1.5e300", "2"], "DOUBLE"),
        (["1e+22"], "DOUBLE"),
        (["1e3", "2"], "VARCHAR"),
        (["1.5e400"], "VARCHAR"),
        (["5."], "VARCHAR"),
        (["+5"], "VARCHAR"),
        ([" 12 "], "VARCHAR"),
        (["1_000"], "VARCHAR"),
        (["1,000"], "VARCHAR"),
        (["0x10"], "VARCHAR"),
        (["NaN"], "VARCHAR"),
        (["inf"], "VARCHAR"),
        (["١٢"], "VARCHAR"),
        (["true", "false"], "BOOLEAN"),
        (["TRUE"], "BOOLEAN"),
        (["true", "False"], "VARCHAR"),
        (["t", "f"], "VARCHAR"),
        (["yes", "no"], "VARCHAR"),
        (["2024-01-05"], "DATE"),
        (["2024-02-30"], "VARCHAR"),
        (["2024-1-5"], "VARCHAR"),
        (["0000-01-01"], "VARCHAR"),
        (["10000-01-01"], "VARCHAR"),
        (["2024-01-05 10:20:30", "2024-01-05T10:20"], "TIMESTAMP"),
        (["2024-01-05 10:20:30.123456"], "TIMESTAMP"),
        (["2024-01-05 10:20:30.1234567"], "VARCHAR"),
        (["2024-01-05 24:00:00"], "VARCHAR"),
        (["2024-01-05", "2024-01-05 10:20:30"], "VARCHAR"),
        (["2024-01-05T10:20:30Z", "2024-01-05T10:20:30+02:00"], "TIMESTAMPTZ"),
        (["2024-01-05T10:20:30Z", "2024-01-05T10:20:30"], "VARCHAR"),
        (["10:20:30"], "VARCHAR"),
        (["01/02/2024"], "VARCHAR"),
    ],
)
def test_a_column_gets_the_narrowest_type_that_gives_every_value_back(
    values: list[str | None], kind: str
) -> None:
    assert choose_type(profile_values(values)) == kind


def test_the_spelling_of_truth_is_kept_to() -> None:
    assert spelling_of(profile_values(["True", "False"])) == ("True", "False")
    assert spelling_of(profile_values(["1"])) is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["01/02/2024", "03/04/2024"], "day first or month first alike"),
        (["13/02/2024", "03/04/2024"], "day first only"),
        (["02/13/2024", "03/04/2024"], "month first only"),
        (["1,5", "2,25"], "decimal comma"),
        (["007", "12"], "leading zeros"),
    ],
)
def test_columns_that_look_typed_say_why_they_stay_text(
    values: list[str | None], says: str
) -> None:
    found = describe_text("x", values)
    assert found is not None
    assert says in found


def test_plain_text_says_nothing() -> None:
    assert describe_text("x", ["Oslo", "Rome"]) is None
    assert describe_text("x", [None]) is None
    assert describe_offsets("x", ["2024-01-05T10:20:30Z", None]) is None
    assert describe_mixed("x", profile_values(["a", "b"])) is None


def test_a_few_odd_values_are_counted() -> None:
    found = describe_mixed("x", profile_values([*("1" for _ in range(99)), "x"]))
    assert found is not None
    assert "1 of 100 values are no BIGINT" in found


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("decimal(18, 2)", "DECIMAL(18,2)"),
        ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"),
        ("int", "INTEGER"),
        ("string", "VARCHAR"),
        ("STRUCT(a INTEGER)", 'STRUCT("a" INTEGER)'),
    ],
)
def test_types_have_one_spelling(given: str, normal: str) -> None:
    assert normalise_type(given) == normal


def test_text_becomes_a_nested_type_through_its_json_alone() -> None:
    check = build_check(Target('STRUCT("a" INTEGER)'), "c0")
    assert check is not None
    assert "to_json" in check.fast
    assert build_check(Target("UNION(a INTEGER)"), "c0") is None
    assert decimal_of("BIGINT") is None


def test_names_and_texts_are_quoted() -> None:
    assert quote_name('a"b') == '"a""b"'
    assert quote_text("a'b") == "'a''b'"


@pytest.mark.parametrize(
    ("expected", "found", "wider"),
    [
        ("INTEGER", "BIGINT", "BIGINT"),
        ("BIGINT", "DECIMAL(38,0)", None),
        ("FLOAT", "DOUBLE", "DOUBLE"),
        ("FLOAT", "DECIMAL(18,2)", "DOUBLE"),
        ("DOUBLE", "VARCHAR", None),
        ("DECIMAL(18,2)", "DECIMAL(38,2)", "DECIMAL(38,2)"),
        ("DECIMAL(18,2)", "DECIMAL(38,1)", "DECIMAL(38,2)"),
        ("DECIMAL(18,2)", "BIGINT", "DECIMAL(38,2)"),
        ("DECIMAL(18,2)", "DECIMAL(18,3)", None),
        ("DECIMAL(38,2)", "DECIMAL(38,2)", None),
        ("DATE", "TIMESTAMP", None),
        ("BIGINT", "VARCHAR", None),
    ],
)
def test_types_widen_as_iceberg_allows(expected: str, found: str, wider: str | None) -> None:
    assert widen(expected, found) == wider


def names_of(plan: Plan) -> list[tuple[str, int | None]]:
    return [(one.name, one.index) for one in plan.columns]


def test_without_a_table_the_file_decides() -> None:
    plan = make_plan(["a", "b"], None, "freeze", "append")
    assert names_of(plan) == [("a", 0), ("b", 1)]
    assert all(one.target is None for one in plan.columns)


def test_columns_are_matched_by_name() -> None:
    plan = make_plan(["NAME", "Id"], TABLE, "freeze", "append")
    assert names_of(plan) == [("id", 1), ("name", 0)]


def test_freeze_names_what_differs() -> None:
    with pytest.raises(Conflict) as caught:
        make_plan(["id", "city"], TABLE, "freeze", "append")
    assert caught.value.details["columns"] == [
        {"column": "city", "problem": "new", "expected": None},
        {"column": "name", "problem": "missing", "expected": "VARCHAR"},
    ]


def test_evolve_adds_and_the_discards_leave_out() -> None:
    plan = make_plan(["id", "city"], TABLE, "evolve", "append")
    assert names_of(plan) == [("id", 0), ("name", None), ("city", 1)]
    for contract in ("discard_row", "discard_value"):
        plan = make_plan(["id", "city"], TABLE, contract, "append")
        assert names_of(plan) == [("id", 0), ("name", None)]
        assert (plan.unknown, plan.unknown_names) == ((1,), ("city",))
        assert plan.warnings


def test_replace_with_evolve_forgets_the_table() -> None:
    plan = make_plan(["x"], TABLE, "evolve", "replace")
    assert names_of(plan) == [("x", 0)]
    with pytest.raises(Conflict):
        make_plan(["x"], TABLE, "freeze", "replace")


def parse(**values: str) -> Options:
    return parse_options(IngestQuery(dataset="d", **values), Media())


def test_options_of_a_plain_request() -> None:
    assert parse() == Options()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"delimiter": "tab"}, {"delimiter": "\t"}),
        ({"delimiter": "¬"}, {"delimiter": "¬"}),
        ({"quote": "none"}, {"quote": ""}),
        ({"quote": ""}, {"quote": ""}),
        ({"quote": "single"}, {"quote": "'"}),
        ({"escape": "backslash"}, {"escape": "\\"}),
        ({"header": "true"}, {"header": True}),
        ({"header": "FALSE"}, {"header": False}),
        ({"encoding": "Latin-1"}, {"encoding": "iso8859-1"}),
        ({"mode": "replace", "contract": "evolve"}, {"mode": "replace", "contract": "evolve"}),
    ],
)
def test_options_have_one_form(values: dict[str, str], expected: dict[str, object]) -> None:
    assert parse(**values) == replace(Options(), **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"mode": "merge"}, "append, replace, upsert"),
        ({"mode": "upsert"}, "needs key"),
        ({"key": "id"}, "upsert"),
        ({"contract": "loose"}, "discard_value"),
        ({"header": "maybe"}, "auto"),
        ({"delimiter": "long one"}, "semicolon"),
        ({"delimiter": "\n"}, "line end"),
        ({"delimiter": ""}, "semicolon"),
        ({"quote": "é"}, "quote"),
        ({"quote": ",", "delimiter": ","}, "differ"),
        ({"escape": "x"}, "backslash"),
        ({"escape": "backslash", "quote": "none"}, "quote"),
        ({"encoding": "klingon"}, "utf-16"),
        ({"encoding": "base64"}, "utf-16"),
        ({"encoding": "unicode_escape"}, "utf-16"),
        ({"encoding": "a\0b"}, "utf-16"),
    ],
)
def test_bad_options_are_refused_with_what_is_supported(values: dict[str, str], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(**values)
    assert says in caught.value.message


def test_headers_give_hints_that_the_query_overrules() -> None:
    media = parse_media("text/csv; charset=windows-1252; header=absent", None)
    hinted = parse_options(IngestQuery(dataset="d"), media)
    assert (hinted.encoding, hinted.header) == ("cp1252", False)
    asked = parse_options(IngestQuery(dataset="d", encoding="utf-8", header="true"), media)
    assert (asked.encoding, asked.header) == ("utf-8", True)


@pytest.mark.parametrize(
    "content_type", [None, "text/csv", "application/octet-stream", "text/plain; charset=utf-8"]
)
def test_csv_is_known_by_several_names(content_type: str | None) -> None:
    assert parse_media(content_type, None).boundary is None


def test_a_form_names_its_boundary() -> None:
    assert parse_media('multipart/form-data; boundary="x y"', None).boundary == b"x y"


@pytest.mark.parametrize(
    ("content_type", "encoding", "cls"),
    [
        ("application/xml", None, UnsupportedMediaType),
        ("application/x-www-form-urlencoded", None, UnsupportedMediaType),
        ("text/csv", "br", UnsupportedMediaType),
        ("multipart/form-data", None, Invalid),
    ],
)
def test_other_bodies_are_refused(
    content_type: str, encoding: str | None, cls: type[LakehouseError]
) -> None:
    with pytest.raises(cls):
        parse_media(content_type, encoding)


def test_headers_tell_of_tabs_packings_and_references() -> None:
    assert parse_media("text/tab-separated-values; charset=utf-16", None).delimiter == "\t"
    assert parse_media("text/tab-separated-values", "gzip").charset is None
    assert parse_media("application/gzip", None).delimiter is None
    assert parse_media("application/json", None).reference
    assert not parse_media("text/csv", "zstd").reference


@pytest.mark.parametrize("name", ["Work", "1a", "a-b", "", "a" * 64, "a.b", "ø", "a\n"])
def test_names_that_no_dataset_has(name: str) -> None:
    with pytest.raises(Invalid):
        check_dataset(name)


def test_the_same_ingest_has_the_same_id() -> None:
    base = make_ingest_id("ab", Options(), "u")
    assert base == make_ingest_id("ab", Options(), "u")
    others = {
        make_ingest_id("cd", Options(), "u"),
        make_ingest_id("ab", Options(mode="replace"), "u"),
        make_ingest_id("ab", Options(header=True), "u"),
        make_ingest_id("ab", Options(), "v"),
        make_ingest_id("ab", Options(), "u", 1),
    }
    assert len(others | {base}) == 6


def test_jobs_and_outcomes_survive_the_pipe() -> None:
    job = Job("s", "f", "i", Options(quote=""), TABLE, Limits(threads=3))
    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(replace(job, table=None).to_json()).table is None
    part = Part("p", "ab", 1, 2)
    outcome = Outcome((part,), part, 3, 2, 1, 0, TABLE, ("w",), {"s": 0.5})
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert Outcome.from_json(replace(outcome, sidecar=None).to_json()).sidecar is None


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (codecs.BOM_UTF8 + b"a", ("utf-8", 3)),
        (codecs.BOM_UTF16_LE + b"a\0", ("utf-16-le", 2)),
        (codecs.BOM_UTF16_BE + b"\0a", ("utf-16-be", 2)),
        (codecs.BOM_UTF32_LE, ("utf-32-le", 4)),
        (b"abc", None),
    ],
)
def test_byte_order_marks_are_known(head: bytes, found: tuple[str, int] | None) -> None:
    assert detect_mark(head) == found


def test_utf16_without_a_mark_shows_in_its_nuls() -> None:
    assert detect_wide("a,b\n1,2\n".encode("utf-16-le")) == "utf-16-le"
    assert detect_wide("a,b\n1,2\n".encode("utf-16-be")) == "utf-16-be"
    assert detect_wide(b"a,b\n1,2\n") is None
    assert detect_wide(b"\0" * 100) is None


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["жук,дым\nщит,юг\n", "名前,都市\n太郎,東京\n"])
def test_utf16_without_a_mark_need_not_be_latin(text: str, encoding: str) -> None:
    assert detect_wide((text * 100).encode(encoding)[:4096]) == encoding
    assert detect_wide((text * 100).encode()[:4096]) is None


def test_a_nul_in_plain_text_is_no_sign_of_utf16() -> None:
    assert detect_wide(b"a,b\n1,\0\n2,3\n" * 100) is None


@pytest.mark.parametrize(
    ("text", "is_utf8"),
    [
        ("é ø € 😀".encode(), True),
        ("é ø".encode() + b" \xff", True),
        ("é ø å".encode("cp1252"), False),
        ("é".encode() + "é".encode("cp1252"), True),
        ("\ufffd".encode() + b"\xff\xfe", False),
        (b"ascii", True),
    ],
)
def test_damage_is_told_from_another_encoding(text: bytes, is_utf8: bool) -> None:
    count = TextCount()
    count.feed(text)
    assert count.is_utf8 is is_utf8


def test_cp1252_loses_no_byte() -> None:
    assert len(set(CP1252_TABLE)) == 256
    assert CP1252_TABLE[0x80] == "€"
    assert CP1252_TABLE[0x81] == "\x81"


@pytest.mark.parametrize("head", [b"BZh9", b"PK\x03\x04", b"ORC", b"\xfd7zXZ\x00"])
def test_other_formats_are_named(head: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_format(head)


def test_encodings_are_known_by_their_aliases() -> None:
    assert parse_encoding("UTF8") == "utf-8"
    assert parse_encoding("windows-1252") == "cp1252"
