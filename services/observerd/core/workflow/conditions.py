"""The language of `when`: comparisons joined by `&&` and `||`, without parentheses.

    $a.output.score >= 0.5 && $b.state == 'completed' || $inputs.force == true

`&&` binds tighter; both stop as soon as the answer is known. `==` and `!=` compare any two
JSON values by type and content (1 and 1.0 are one number, true is none); `<` and its kin need
two numbers or two texts.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from services.observerd.core.workflow.references import (
    Reference,
    Scope,
    parse_reference,
    resolve,
)
from services.observerd.core.workflow.states import Unresolved

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<op>==|!=|<=|>=|<|>)
      | (?P<and>&&) | (?P<or>\|\|)
      | (?P<ref>\$\{?[A-Za-z_][^\s=!<>&|'"()}]*\}?)
      | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<word>true|false|null)\b
    )""",
    re.VERBOSE,
)
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class BadCondition(Exception):
    """A condition that cannot be read; the message says where and what is wrong."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the condition."""

    value: Any


Operand = Reference | Literal


class Comparison(NamedTuple):
    """`left op right`."""

    left: Operand
    op: str
    right: Operand


@dataclass(frozen=True, slots=True)
class Condition:
    """Alternatives, each a list of comparisons that must all hold."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    def references(self) -> Iterator[Reference]:
        """Every reference in it."""
        for comparisons in self.alternatives:
            for left, _, right in comparisons:
                yield from (side for side in (left, right) if isinstance(side, Reference))

    def holds(self, scope: Scope) -> bool:
        """Whether it is true.

        Raises:
            Unresolved: a reference that decides has no value, or the two cannot be compared.
        """
        return any(
            all(_compare(comparison, scope) for comparison in comparisons)
            for comparisons in self.alternatives
        )


def parse_condition(text: str) -> Condition:
    """The condition that a text says.

    Raises:
        BadCondition: it is none.
    """
    tokens = _Tokens(text)
    alternatives: list[tuple[Comparison, ...]] = []
    comparisons = [_parse_comparison(tokens)]
    while tokens.kind:
        joint = tokens.take("and", "or", want="&& or ||")
        if joint == "||":
            alternatives.append(tuple(comparisons))
            comparisons = []
        comparisons.append(_parse_comparison(tokens))
    alternatives.append(tuple(comparisons))
    return Condition(tuple(alternatives))


class _Tokens:
    """The text's tokens, one ahead. `kind` is empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.kind = self.token = ""
        self._advance()

    def _advance(self) -> None:
        if not self._text[self._at :].strip():
            self.kind = self.token = ""
            return
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            rest = self._text[self._at :].strip()
            if rest[0] in "()":
                raise BadCondition("parentheses are not part of the language; && binds tighter")
            if rest[0] in "&|=!":
                raise BadCondition(f"{rest[:2]!r} is no operator; write == != < <= > >= && ||")
            raise BadCondition(
                f"{rest[:20]!r} is neither a reference ($node.output.x), nor a number, a quoted "
                "text, true, false or null"
            )
        self.kind = str(match.lastgroup)
        self.token = match[self.kind]
        self._at = match.end()

    def take(self, *kinds: str, want: str) -> str:
        """The next token, which must be of one of the kinds."""
        if self.kind not in kinds:
            found = repr(self.token) if self.kind else "the end"
            raise BadCondition(f"expected {want} before {found}")
        token = self.token
        self._advance()
        return token


def _parse_comparison(tokens: _Tokens) -> Comparison:
    left = _parse_operand(tokens)
    op = tokens.take("op", want="one of == != < <= > >=")
    return Comparison(left, op, _parse_operand(tokens))


def _parse_operand(tokens: _Tokens) -> Operand:
    kind = tokens.kind
    token = tokens.take("ref", "text", "number", "word", want="a reference or a value")
    if kind == "ref":
        reference = parse_reference(token)
        if reference is None:
            raise BadCondition(f"{token!r} is no reference; write $node.output.x or $inputs.x")
        return reference
    if kind == "text":
        return Literal(re.sub(r"\\(.)", r"\1", token[1:-1]))
    return Literal(_WORDS[token] if kind == "word" else json.loads(_number(token)))


def _number(token: str) -> str:
    # JSON knows no leading zeros.
    sign, digits = ("-", token[1:]) if token[0] == "-" else ("", token)
    return sign + re.sub(r"^0+(?=\d)", "", digits)


def _compare(comparison: Comparison, scope: Scope) -> bool:
    left, right = (
        resolve(side, scope) if isinstance(side, Reference) else side.value
        for side in (comparison.left, comparison.right)
    )
    if comparison.op in ("==", "!="):
        return _same(left, right) == (comparison.op == "==")
    texts = isinstance(left, str) and isinstance(right, str)
    if texts or (_is_number(left) and _is_number(right)):
        return _ORDERS[comparison.op](left, right)
    raise Unresolved(
        f"{_kind(left)} {comparison.op} {_kind(right)}: only two numbers or two texts have an order"
    )


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        one, two = cast("list[Any]", left), cast("list[Any]", right)
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(left, dict) and isinstance(right, dict):
        first, second = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    return left == right


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = ((str, "a text"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "a number")
