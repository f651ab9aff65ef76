"""The written forms that may become a type without a loss.

Each pattern is valid for Python's `re` and for RE2 (DuckDB), so that what is guessed on a
sample and what is checked on every row mean the same. The forms are narrow on purpose:
`007`, `+5`, ` 12 `, `1_000`, `0x10`, `5.`, `1e3`, `NaN` and `inf` match none of them,
because a number would not give the text back.
"""

from __future__ import annotations

# Whole part without leading zeros, fraction, or both; `.5` is a half and nothing else.
DECIMAL = r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)"
INTEGER = r"-?(?:0|[1-9][0-9]*)"
# Programs print floats with a point or a signed exponent (`1.5e7`, `1e-07`, `1e+22`); `1e3`
# and `12E4` are as likely to be part numbers, and stay text.
FLOAT = (
    DECIMAL
    + r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?[eE][+-][0-9]{1,3}"
    + r"|-?(?:0|[1-9][0-9]*)?\.[0-9]+[eE][0-9]{1,3}"
)
# Where the source itself says that it is a number.
ANY_FLOAT = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?|" + DECIMAL
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6}0*)?)?"
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6}0*)?"
TIMESTAMP = DATE + "[ T]" + CLOCK
OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-4])(?::?[0-5][0-9])?)"
TIMESTAMPTZ = TIMESTAMP + OFFSET

# A column is BOOLEAN when all its values are of one of these pairs.
BOOLEANS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))

# No longer text is taken for anything but text. Bytes.
MAX_TYPED = 400

# Largest precision that every engine of the fleet keeps, and what fits in 64 bits.
MAX_PRECISION = 38
SHORT_PRECISION = 18
