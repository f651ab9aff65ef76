"""BERT's WordPiece beside the reference, whose ids stand here as they came from it.

The expected ids and the hash were made by the `tokenizers` package (0.23.3: BertNormalizer,
BertPreTokenizer, WordPiece with this vocabulary).
"""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.embedd.core.wordpiece import SLICE, WordPiece, read_slices, read_windows
from services.embedd.store.minilm import MAX_TOKENS, VOCABULARY

CLS, SEP, UNK = 101, 102, 100
VOCABULARY_TOKENS = VOCABULARY.read_text("utf-8").removesuffix("\n").split("\n")
REFERENCE: list[tuple[str, list[int]]] = [
    ("", []),
    ("Hello, World!", [7592, 1010, 2088, 999]),
    ("unaffable embeddings", [14477, 20961, 3468, 7861, 8270, 4667, 2015]),
    (
        "\xc5se M\xfcller's caf\xe9 in S\xe3o Paulo",
        [2004, 2063, 12304, 1005, 1055, 7668, 1999, 7509, 9094],
    ),
    (
        "\u039f\u0394\u039f\u03a3 \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
        [1169, 29722, 29730, 29733, 1173, 18199, 29733, 29735, 29736, 15297],
    ),
    ("\u0130stanbul ISTANBUL \u0131o", [9960, 9960, 1104, 2080]),
    (
        "\u4e2d\u6587 and \u6f22\u5b57\u304b\u306a\u30ab\u30ca \ud55c\uad6d\uc5b4",
        [
            1746,
            1861,
            1998,
            1904,
            100,
            1651,
            30193,
            30226,
            30241,
            1469,
            30006,
            30021,
            29991,
            30014,
            30020,
            29999,
            30008,
        ],
    ),
    ("a\x00b\ufffdc\u200dd\xade\x1cf", [5925, 3207, 2546]),
    ("tabs\tand\nlines\r\n\xa0\u3000\u2028end", [21628, 2015, 1998, 3210, 2203]),
    (
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        [
            22038,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
            20348,
        ],
    ),
    (
        "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
        [100],
    ),
    ("na\xefve\u2014dash\u2026\u201cquotes\u201d", [15743, 1517, 11454, 1529, 1523, 16614, 1524]),
    (
        "$12.50 + 3% = ok? e-mail@host.com",
        [
            1002,
            2260,
            1012,
            2753,
            1009,
            1017,
            1003,
            1027,
            7929,
            1029,
            1041,
            1011,
            5653,
            1030,
            3677,
            1012,
            4012,
        ],
    ),
    ("\U0001f600 emoji \U0001f469\u200d\U0001f467 \U0001fae8", [100, 7861, 29147, 2072, 100, 100]),
    ("\ufb01 ligature \xbd \u2460", [1984, 8018, 11244, 1092, 100]),
    ("\u0435\u0301 \u0451 \u0439 \u0416", [1185, 1185, 1188, 1186]),
    ("\u0301 lone mark e\u0301", [10459, 2928, 1041]),
    ("don't stop_now C++ #1", [2123, 1005, 1056, 2644, 1035, 2085, 1039, 1009, 1009, 1001, 1015]),
    ("\U00020000\U0002a700 rare", [100, 100, 4678]),
    (
        "ab" * 60 + " " + "cd" * 20,
        [
            100,
            26629,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            16409,
            2094,
        ],
    ),
    ("  spaces   ", [7258]),
    ("\x85next\x0bline", [2279, 4179]),
    ("[CLS] [SEP] [MASK]", [1031, 18856, 2015, 1033, 1031, 19802, 1033, 1031, 7308, 1033]),
    ("\ufdfa \u202eabc", [100, 5925]),
    ("\uff26\uff35\uff2c\uff2c \uff57\uff49\uff44\uff54\uff48", [100, 100]),
]
SWEEP = "2cf3e1b220673331b29364b7c6d1764f85513e37d95c4d8b7f7740e9d52657c4"


@pytest.fixture(scope="module")
def pieces() -> WordPiece:
    return WordPiece(VOCABULARY_TOKENS, MAX_TOKENS)


def test_the_vocabulary_is_whole() -> None:
    assert len(VOCABULARY_TOKENS) == 30522
    assert VOCABULARY_TOKENS[CLS], VOCABULARY_TOKENS[SEP] == ("[CLS]", "[SEP]")


@pytest.mark.parametrize(("text", "ids"), REFERENCE, ids=range(len(REFERENCE)))
def test_ids_are_the_references(pieces: WordPiece, text: str, ids: list[int]) -> None:
    assert pieces.encode(text).ids == [CLS, *ids, SEP]
    # Remembered words give the same again.
    assert pieces.encode(text).ids == [CLS, *ids, SEP]


def test_characters_of_all_planes_are_taken_as_the_reference_takes_them(
    pieces: WordPiece,
) -> None:
    hashed = hashlib.sha256()
    for code in [*range(0, 0x3000, 3), *range(0x3000, 0x110000, 211)]:
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            ids = pieces.encode(f"hel{char}lo {char} w{char}").ids[1:-1]
            hashed.update(json.dumps(ids).encode())
    assert hashed.hexdigest() == SWEEP


@pytest.mark.parametrize("count", [253, 254, 255])
def test_the_length_is_full_at_254_tokens_of_text(pieces: WordPiece, count: int) -> None:
    encoding = pieces.encode("a " * count)
    assert len(encoding.ids) == min(count, 254) + 2
    assert encoding.ids[-1] == SEP
    assert encoding.truncated is (count > 254)


def test_a_word_is_cut_in_its_pieces_at_the_limit(pieces: WordPiece) -> None:
    encoding = pieces.encode("a " * 253 + "unaffable")
    assert encoding.ids[254:] == [14477, SEP]
    assert encoding.truncated


def test_white_space_past_the_limit_is_no_loss(pieces: WordPiece) -> None:
    assert not pieces.encode("a " * 254 + " \n" * 5000).truncated


class Watched(str):
    """A text that knows how far it was read."""

    read = 0

    def __getitem__(self, at: object) -> str:  # type: ignore[override]
        assert isinstance(at, slice)
        self.read = max(self.read, at.stop)
        return str.__getitem__(self, at)


def test_a_megabyte_is_not_read_past_what_the_model_takes(pieces: WordPiece) -> None:
    text = Watched("hello world " * 90_000)
    assert pieces.encode(text).truncated
    assert 1000 < text.read < 5000


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a" * 1_000_000, [UNK]),
        ("\xe4" * 1_000_000, [UNK]),
        ("\u0301" * 100_000, []),
        ("\x01" * 100_000 + "a", [1037]),
        ("e\u0301" * 40_000 + " nurse", [UNK, 6821]),
        ("\xe4" * (SLICE - 1) + "\u0301" * 50 + "\xe4", [UNK]),
    ],
)
def test_endless_words_are_one_word(pieces: WordPiece, text: str, ids: list[int]) -> None:
    assert pieces.encode(text).ids == [CLS, *ids, SEP]


ODD = st.sampled_from("ab \t\n.,\xe9\u0301\xdf\u4e2d\u3000\x00\x1c\xad#'_\u2014\u0130")


@settings(max_examples=200, deadline=None)
@given(st.lists(ODD, max_size=60).map("".join))
def test_windows_and_slices_part_no_word(text: str) -> None:
    pieces = WordPiece(VOCABULARY_TOKENS, 100_000)
    whole = pieces.encode(text).ids[1:-1]
    windows = list(read_windows(text, 3))
    assert "".join(windows) == text
    assert [i for window in windows for i in pieces.encode(window).ids[1:-1]] == whole
    assert "".join(read_slices(text, 2)) == text


def test_what_is_remembered_is_bounded(pieces: WordPiece, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.embedd.core import wordpiece

    monkeypatch.setattr(wordpiece, "REMEMBERED_WORDS", 10)
    small = WordPiece(VOCABULARY_TOKENS, MAX_TOKENS)
    for number in range(100):
        small.encode(f"word{number}")
    assert len(small._pieces) <= 10


def test_a_vocabulary_without_special_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[UNK\] or \[SEP\]"):
        WordPiece(["[CLS]", "a"], 8)
