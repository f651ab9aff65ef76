"""Scripted behaviour: which rule a request meets."""

from __future__ import annotations

from collections.abc import Iterable

from shared.wire.fake_ollama import ScriptRule

NOTHING = ScriptRule(times=None)


class ScriptBook:
    """Rules in order; each is used up after its number of times."""

    def __init__(self) -> None:
        self._rules: list[ScriptRule] = []

    @property
    def rules(self) -> list[ScriptRule]:
        """What is left, with what is left of `times`."""
        return list(self._rules)

    def add(self, rules: Iterable[ScriptRule]) -> None:
        """Puts rules behind those that are there."""
        self._rules += rules

    def clear(self) -> None:
        """Forgets all rules."""
        self._rules.clear()

    def take(self, path: str, model: str, body: str) -> ScriptRule:
        """The first rule that matches, used once; one without effect when none does."""
        for at, rule in enumerate(self._rules):
            if _matches(rule, path, model, body):
                if rule.times == 1:
                    del self._rules[at]
                elif rule.times is not None:
                    self._rules[at] = rule.model_copy(update={"times": rule.times - 1})
                return rule
        return NOTHING


def _matches(rule: ScriptRule, path: str, model: str, body: str) -> bool:
    return (
        rule.path in (None, path)
        and rule.model in (None, model)
        and (rule.contains is None or rule.contains in body)
    )
