"""catalogd's decisions about columns: fingerprint, difference, evolution, field ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalogd.core.schema import (
    assign_ids,
    build_name_mapping,
    compare_columns,
    find_name_problem,
    fingerprint_columns,
    merge_columns,
    plan_columns,
    read_name_mapping,
    widen_type,
)
from services.catalogd.core.sqltypes import SQL_NAMES
from services.catalogd.core.types import (
    Columns,
    ColumnType,
    Decimal,
    Field,
    Fixed,
    List,
    Map,
    Scalar,
    Struct,
    canonical_text,
    walk_leaves,
    walk_paths,
)
from shared.errors import Conflict

INT, LONG, FLOAT, DOUBLE, STRING = (Scalar(k) for k in ("int", "long", "float", "double", "string"))

names = st.text('abABé "', min_size=1, max_size=2)
leaves = st.one_of(
    st.sampled_from(sorted(SQL_NAMES)).map(Scalar),
    st.builds(Decimal, st.integers(1, 38), st.integers(0, 38)),
    st.builds(Fixed, st.integers(1, 64)),
)


def struct_of(inner: st.SearchStrategy[ColumnType]) -> st.SearchStrategy[ColumnType]:
    members = st.lists(st.builds(Field, names, inner), min_size=1, max_size=3, unique_by=lower)
    return members.map(lambda fields: Struct(tuple(fields)))


def lower(field: Field) -> str:
    return field.name.casefold()


types = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(List, inner), st.builds(Map, leaves, inner), struct_of(inner)
    ),
    max_leaves=4,
)
tables = st.lists(st.builds(Field, names, types), min_size=1, max_size=4, unique_by=lower).map(
    tuple
)


def columns(**kinds: ColumnType) -> Columns:
    return tuple(Field(name, kind) for name, kind in kinds.items())


@settings(max_examples=40, deadline=None)
@given(tables, st.randoms())
def test_fingerprint_does_not_know_the_order_of_columns(table: Columns, random: object) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fingerprint_columns(tuple(shuffled)) == fingerprint_columns(table)


@settings(max_examples=40, deadline=None)
@given(tables, tables)
def test_fingerprints_are_equal_only_for_equal_names_and_types(one: Columns, two: Columns) -> None:
    def facts(table: Columns) -> set[tuple[str, str]]:
        return {(field.name, canonical_text(field.type)) for field in table}

    assert (fingerprint_columns(one) == fingerprint_columns(two)) == (facts(one) == facts(two))


def test_fingerprint_knows_case_and_is_the_same_forever() -> None:
    assert fingerprint_columns(columns(id=LONG)) != fingerprint_columns(columns(ID=LONG))
    assert (
        fingerprint_columns(columns(id=LONG, price=Decimal(10, 2)))
        == "361a740f09949f73b3ce08866c320d33d164475d63eb2b37b7cd48511ee965ef"
    )


def test_members_of_a_struct_may_come_in_any_order() -> None:
    one = Struct((Field("a", INT), Field("b", STRING)))
    two = Struct((Field("b", STRING), Field("a", INT)))
    assert fingerprint_columns(columns(s=one)) == fingerprint_columns(columns(s=two))
    assert fingerprint_columns(columns(s=one)) != fingerprint_columns(columns(s=List(one)))


@pytest.mark.parametrize(
    ("one", "other", "wider"),
    [
        (INT, LONG, LONG),
        (FLOAT, DOUBLE, DOUBLE),
        (Decimal(5, 2), Decimal(9, 2), Decimal(9, 2)),
        (Decimal(5, 2), Decimal(9, 3), None),
        (INT, DOUBLE, None),
        (LONG, DOUBLE, None),
        (INT, STRING, None),
        (Scalar("date"), Scalar("timestamp"), None),
        (Scalar("timestamp"), Scalar("timestamptz"), None),
        (LONG, Decimal(19, 0), None),
        (Fixed(4), Fixed(8), None),
        (List(INT), List(LONG), List(LONG)),
        (List(INT), INT, None),
        (Map(STRING, INT), Map(STRING, LONG), Map(STRING, LONG)),
        (Map(INT, INT), Map(LONG, INT), None),
        (
            Struct((Field("a", INT), Field("b", STRING))),
            Struct((Field("c", INT), Field("a", LONG))),
            Struct((Field("a", LONG), Field("b", STRING), Field("c", INT))),
        ),
        (Struct((Field("a", INT),)), Struct((Field("a", STRING),)), None),
        (Struct((Field("a", INT),)), Struct((Field("A", INT),)), None),
    ],
)
def test_widening(one: ColumnType, other: ColumnType, wider: ColumnType | None) -> None:
    assert widen_type(one, other) == wider
    there, back = widen_type(one, other), widen_type(other, one)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert canonical_text(there) == canonical_text(back)


@settings(max_examples=40, deadline=None)
@given(tables, tables)
def test_a_merge_holds_every_column_of_both_or_says_which_it_cannot(
    one: Columns, two: Columns
) -> None:
    merged = merge_columns(one, two)
    assert {f.name for f in merged.columns} == {f.name for f in (*one, *two)}
    assert tuple(f.name for f in merged.columns)[: len(one)] == tuple(f.name for f in one)
    theirs = {f.name: f.type for f in two}
    for field in one:
        fits = field.name not in theirs or widen_type(field.type, theirs[field.name]) is not None
        assert (field.name in merged.blocked) != fits


def test_difference_names_each_column_with_both_types() -> None:
    difference = compare_columns(
        columns(id=LONG, city=STRING, price=Decimal(10, 2)),
        columns(id=STRING, price=Decimal(10, 2), age=INT),
    )
    assert difference.added == [{"name": "age", "table_type": None, "object_type": "INTEGER"}]
    assert difference.missing == [{"name": "city", "table_type": "VARCHAR", "object_type": None}]
    assert difference.changed == [{"name": "id", "table_type": "BIGINT", "object_type": "VARCHAR"}]


def test_equal_columns_in_another_order_leave_the_table_as_it_is() -> None:
    table = columns(a=INT, b=STRING)
    assert plan_columns("t", table, columns(b=STRING, a=INT), "append", evolve=False) == table
    assert plan_columns("t", table, columns(b=STRING, a=INT), "replace", evolve=True) == table


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize(
    "given_columns", [columns(a=LONG), columns(a=INT, b=INT), columns(b=INT), columns(A=INT)]
)
def test_without_evolve_any_difference_is_a_conflict(mode: str, given_columns: Columns) -> None:
    with pytest.raises(Conflict) as caught:
        plan_columns("t", columns(a=INT), given_columns, mode, evolve=False)  # type: ignore[arg-type]
    assert "evolve=true" in caught.value.message
    details = caught.value.details
    assert details["added"] or details["missing"] or details["changed"]
    assert details["fingerprint"]["table"] == fingerprint_columns(columns(a=INT))
    assert details["fingerprint"]["objects"] == fingerprint_columns(given_columns)


def test_evolve_appends_new_columns_widens_old_ones_and_keeps_missing_ones() -> None:
    planned = plan_columns(
        "t",
        columns(id=INT, gone=STRING, wide=LONG),
        columns(new=FLOAT, wide=INT, id=LONG),
        "append",
        True,
    )
    assert planned == columns(id=LONG, gone=STRING, wide=LONG, new=FLOAT)


def test_evolve_refuses_what_loses_and_names_it() -> None:
    with pytest.raises(Conflict) as caught:
        plan_columns("t", columns(id=LONG, x=INT), columns(id=STRING, x=LONG), "append", True)
    assert caught.value.details["blocking"] == ["id"]
    assert [entry["name"] for entry in caught.value.details["changed"]] == ["id", "x"]


def test_evolve_refuses_a_column_that_differs_only_in_case() -> None:
    with pytest.raises(Conflict, match="differ only in case"):
        plan_columns("t", columns(Name=STRING), columns(name=STRING), "append", True)


def test_replace_with_evolve_takes_the_columns_as_they_come() -> None:
    given_columns = columns(id=STRING, z=INT)
    assert (
        plan_columns("t", columns(id=LONG, x=INT), given_columns, "replace", True) == given_columns
    )


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ((), "no columns"),
        (columns(a=INT) + columns(a=LONG), "2 times"),
        (columns(a=INT) + columns(A=LONG), "differ only in case"),
        ((Field("", INT),), "empty name"),
        (columns(s=Struct(())), "no members"),
        (columns(s=Struct((Field("x", INT), Field("X", INT)))), "differ only in case"),
        (columns(s=List(Struct((Field("x", INT), Field("x", INT))))), "2 times"),
        ((Field("a.b", INT), Field("a", Struct((Field("b", INT),)))), "field inside another"),
        ((Field("l.element", INT), Field("l", List(INT))), "field inside another"),
    ],
)
def test_names_that_no_table_can_have(table: Columns, problem: str) -> None:
    assert problem in (find_name_problem(table) or "")


def test_names_that_a_table_can_have() -> None:
    assert (
        find_name_problem((*columns(a=INT, b=Struct((Field("a", INT),))), Field("a.c", INT)))
        is None
    )


@settings(max_examples=40, deadline=None)
@given(tables)
def test_every_path_gets_its_own_id(table: Columns) -> None:
    ids = assign_ids(table, {}, 0)
    assert sorted(ids.values()) == list(range(1, len(ids) + 1))
    assert set(ids) == {path for path, _ in walk_paths(table)}


@settings(max_examples=40, deadline=None)
@given(tables, tables)
def test_a_name_keeps_its_id_for_ever(one: Columns, two: Columns) -> None:
    first = assign_ids(one, {}, 0)
    second = assign_ids(two, first, max(first.values()))
    assert all(second[path] == first[path] for path in second if path in first)
    fresh = [number for path, number in second.items() if path not in first]
    assert all(number > max(first.values()) for number in fresh)
    assert len(set(second.values())) == len(second)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_name_mapping_reads_back_as_it_was_built(table: Columns) -> None:
    ids = assign_ids(table, {}, 0)
    assert read_name_mapping(build_name_mapping(ids)) == ids


def test_leaves_come_in_the_order_of_parquet() -> None:
    table = columns(
        a=Struct((Field("x", INT), Field("y", List(STRING)))), m=Map(STRING, INT), z=INT
    )
    assert [path for path, _ in walk_leaves(table)] == [
        ("a", "x"),
        ("a", "y", "element"),
        ("m", "key"),
        ("m", "value"),
        ("z",),
    ]
