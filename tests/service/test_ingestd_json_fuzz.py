"""Whatever objects hold: each value that went in comes out, as its column's type says it."""

from __future__ import annotations

import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ingestd.core.jsonlines import Number, parse_line, take_value
from shared.errors import Unprocessable
from tests.support.ingestd import convert_bytes, reader

FIXED = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBERS = st.one_of(
    st.integers(-(10**22), 10**22).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda d: format(d, "f")),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["0", "-0", "1.10", "1e3", "1E+2", "0.1", "-0.0", "1e-400", "9" * 40]),
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", "null", "true", "1", "007", "2024-01-05", "2024-01-05T10:20:30Z", '{"a":1}']
    ),
)
PLAIN = st.one_of(NUMBERS, TEXTS.map(json.dumps), st.sampled_from(["null", "true", "false"]))
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(found)}]"),
        st.lists(st.tuples(st.sampled_from("xyz"), inner), max_size=3).map(
            lambda found: "{" + ", ".join(f'"{name}": {value}' for name, value in found) + "}"
        ),
    ),
    max_leaves=5,
)
# Columns whose values are of one kind, and such as hold anything.
COLUMNS = st.sampled_from([NUMBERS, TEXTS.map(json.dumps), PLAIN, NESTED])


@st.composite
def files(draw: st.DrawFn) -> list[str]:
    kinds = [draw(COLUMNS) for _ in range(draw(st.integers(1, 3)))]
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        members = [
            f'"{name}": {draw(kind)}'
            for name, kind in zip("abc", kinds, strict=False)
            if draw(st.integers(0, 5))
        ]
        lines.append("{" + ", ".join(members) + "}")
    return lines


@pytest.mark.deep
@settings(FIXED, max_examples=300)
@given(lines=files())
def test_every_value_comes_back(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = convert_bytes(Path(folder), "\n".join(lines).encode(), format="jsonl")
        except Unprocessable:
            assert all(not parse_line(line) for line in lines)
            return
        assert found.rejects == []
        rows = [dict(parse_line(line)) for line in lines]
        result: list[Any] = []
        for part in found.outcome.parts:
            result += reader().execute(f"SELECT * FROM read_parquet('{part.path}')").fetchall()
        types = found.types
        assert len(result) == len(rows)
        for row, texts, values in zip(rows, found.rows, result, strict=True):
            for name, kind, text, value in zip(found.names, types, texts, values, strict=True):
                assert same(row.get(name), kind, text, value), (row, name, kind, text)


def same(given: Any, kind: str, text: str | None, value: Any) -> bool:
    """Whether a value is what stood in the JSON."""
    if given is None:
        return value is None
    _, written = take_value(given)
    if kind == "VARCHAR":
        return text == written
    if kind.startswith(("STRUCT", "MAP")) or kind.endswith("]"):
        return alike(given, value)
    if isinstance(given, Number):
        return Decimal(given) == Decimal(str(value))
    if kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ"):
        assert written is not None
        assert text is not None
        return text[:10] == written[:10]
    return text == written


def alike(given: Any, value: Any) -> bool:
    """The same for nested values."""
    if isinstance(given, Number):
        return Decimal(given) == Decimal(str(value))
    if isinstance(given, list) and given and isinstance(given[0], tuple):
        return list(value) == [name for name, _ in given] and all(
            alike(inner, value[name]) for name, inner in given
        )
    if isinstance(given, list):
        return len(given) == len(value) and all(map(alike, given, value))
    return given == value


def test_the_comparison_tells_values_apart() -> None:
    members = parse_line('{"a": [1.10, {"x": "y"}]}')
    assert alike(members[0][1], [Decimal("1.1"), {"x": "y"}])
    assert not alike(members[0][1], [Decimal("1.2"), {"x": "y"}])
    assert not alike(members[0][1], [Decimal("1.1"), {"x": "z"}])
    assert not same(Number("1"), "BIGINT", "2", 2)
