"""Cutting blocks of lines alike gives what parsing each line gives, or nothing."""

from __future__ import annotations

import random

import pytest

from services.ingestd.core.jsonlines import Kind, learn_pattern, parse_line, take_value
from services.ingestd.worker.alike import Cut, Cutter

LINE = '{"id": 1, "name": "Ann"}\n'


def cut(lines: str, like: str | None = None) -> list[Cut] | None:
    pattern = learn_pattern((like or lines).splitlines()[0])
    assert pattern is not None
    return Cutter(pattern).cut(lines.encode())


def show(cuts: list[Cut] | None) -> list[tuple[str | None, ...]]:
    assert cuts is not None
    return list(zip(*(one.texts.to_pylist() for one in cuts), strict=True))


def test_values_come_as_they_were_written() -> None:
    cuts = cut(
        '{"id": 1.10, "name": "A, \\"b\\" : c", "on": true}\n'
        '{"id": 1e5, "name": "", "on": null}\n'
        '{"id": -0, "name": "\u00e5 : {}", "on": false}\n'
    )
    assert show(cuts) == [
        ("1.10", 'A, "b" : c', "true"),
        ("1e5", "", None),
        ("-0", "\u00e5 : {}", "false"),
    ]
    assert cuts is not None
    assert [one.kinds for one in cuts] == [Kind.NUMBER, Kind.STRING, Kind.BOOLEAN]
    assert [one.empties for one in cuts] == [False, True, False]


def test_a_column_of_several_kinds_and_one_of_nothing() -> None:
    cuts = cut('{"a":"x","b":null}\n{"a":7,"b":null}\n{"a":null,"b":null}\n')
    assert show(cuts) == [("x", None), ("7", None), (None, None)]
    assert cuts is not None
    assert [one.kinds for one in cuts] == [Kind.STRING | Kind.NUMBER, Kind.NONE]


def test_lines_that_end_in_two_characters() -> None:
    assert show(cut(LINE.replace("\n", "\r\n") * 3)) == [("1", "Ann")] * 3
    assert cut(LINE.replace("\n", "\r\n") + LINE) is None


def test_a_nul_is_told() -> None:
    (one,) = cut('{"a": "x\\u0000"}\n') or []
    assert one.nuls
    (one,) = cut('{"a": "x\\n"}\n') or []
    assert not one.nuls


@pytest.mark.parametrize(
    "odd",
    [
        '{"id": 1, "name": Ann}',
        '{"id": 01, "name": "Ann"}',
        '{"id": NaN, "name": "Ann"}',
        '{"id": 1., "name": "Ann"}',
        '{"id": 1 , "name": "Ann"}',
        '{"id": 1, "nome": "Ann"}',
        '{"id": 1, "name" : "Ann"}',
        '{"id": 1,  "name": "Ann"}',
        '{"id": 1, "name": "Ann"} ',
        ' {"id": 1, "name": "Ann"}',
        '{"id": 1, "name": "Ann"',
        '{"id": 1, "name": "Ann}',
        '{"id": 1, "name": "}',
        '{"id": 1, "name": ""Ann"}',
        '{"id": 1, "name": "An"n"}',
        '{"id": "1, "name": "Ann"}',
        '{"id": 1, "name": "A\tn"}',
        '{"id": 1, "name": "A\\x"}',
        '{"id": 1, "name": "A\\"}',
        '{"id": 1, "name": "\\ud800"}',
        '{"id": [1], "name": "Ann"}',
        '{"id": ["\\n"], "name": "Ann"}',
        '{"id": {"a": 1}, "name": "Ann"}',
        '{"id": 1}',
        '{"id": 1, "name": "Ann", "id": 2}',
        '{"name": "Ann", "id": 1}',
        "",
        "null",
        '{"id": , "name": "Ann"}',
        '{"id": nul, "name": "Ann"}',
        '{"id": 1, "name": ":Ann"}',
    ],
)
def test_a_block_with_an_odd_line_is_left_to_others(odd: str) -> None:
    for block in (f"{odd}\n{LINE}", f"{LINE}{odd}\n", f"{LINE}{odd}\n{LINE}"):
        assert cut(block, LINE) is None


@pytest.mark.parametrize("line", ['{"a" : 1}\n', '{":a": 1}\n'])
def test_names_that_colons_do_not_tell(line: str) -> None:
    assert cut(line * 2) is None


def test_whatever_is_cut_is_what_each_line_says() -> None:
    dice = random.Random(31)
    pieces = ['"', "\\", ":", ",", "}", "{", '":', '": ', "a", "\u00e5", "\\u0041", "\\n", " ", "1"]
    values = ["null", "true", "1.50", '"x"', '""', "-7e3", '"a,b"', '"\\""', "0", "[1]", "01"]
    taken = 0
    for _ in range(4000):
        lines: list[str] = []
        for _ in range(dice.randint(1, 4)):
            one, two = dice.choice(values), dice.choice(values)
            if dice.random() < 0.3:
                two = '"' + "".join(dice.choices(pieces, k=dice.randint(0, 5))) + '"'
            lines.append(f'{{"k": {one}, "l":{two}}}')
        cuts = cut("".join(f"{line}\n" for line in lines), '{"k": 1, "l":2}')
        if cuts is None:
            continue
        taken += 1
        parsed = [[take_value(value) for _, value in parse_line(line)] for line in lines]
        assert show(cuts) == [tuple(text for _, text in row) for row in parsed], lines
        for column, one in enumerate(cuts):
            kinds = Kind.NONE
            for row in parsed:
                kinds |= row[column][0]
            assert one.kinds == kinds
    assert taken > 500
