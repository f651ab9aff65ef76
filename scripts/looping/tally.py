"""What a round gave: judged answers, counts, and pairs; and the rounds of several seeds as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.lift.judged import Query
from scripts.lift.measures import Comparison, Pair, compare
from scripts.looping.answering import Answer


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that was made and judged: of which query, from which documents."""

    run: str
    query: Query
    answer: Answer
    made_from: tuple[str, ...]
    score: Mapping[str, Any]
    evidence: tuple[Mapping[str, str], ...]
    right: bool

    @property
    def accepted(self) -> bool:
        """Whether the scorer took it."""
        return bool(self.score["verdict"] == "accepted")


@dataclass
class Round:
    """What one round gave; the first, number 0, is what there was before.

    Attributes:
        pairs: what was compared, by arm: held, unseen, control, right.
        answers: counts over the answers to held-out queries.
    """

    number: int
    pairs: dict[str, list[Pair]]
    control_moved: int
    answers: dict[str, float]
    tasks: dict[str, Any] = field(default_factory=dict)
    feed: dict[str, Any] = field(default_factory=dict)
    refine: dict[str, Any] = field(default_factory=dict)
    distil: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)

    def compare(self, arm: str) -> Comparison:
        """What an arm's pairs say together."""
        return compare(self.pairs[arm])


def count_tasks(done: Sequence[Sequence[Judged]]) -> dict[str, Any]:
    """What became of the drafts of each task."""
    made = [one for drafts in done for one in drafts]
    accepted = [one for one in made if one.accepted]
    return {
        "tasks": len(done),
        "drafts": len(made),
        "accepted": len(accepted),
        "with_an_accepted_draft": sum(any(one.accepted for one in drafts) for drafts in done),
        "first_draft_accepted": sum(drafts[0].accepted for drafts in done if drafts),
        "right_of_accepted": sum(one.right for one in accepted),
        "verdicts": dict(sorted(Counter(str(one.score["verdict"]) for one in made).items())),
    }


def pool_rounds(by_seed: Sequence[Sequence[Round]]) -> list[Round]:
    """The rounds of several seeds as one: pairs together, so that topics stay clusters."""
    return [_pool(list(rounds)) for rounds in zip(*by_seed, strict=True)]


def _pool(rounds: list[Round]) -> Round:
    if len(rounds) == 1:
        return rounds[0]
    return Round(
        rounds[0].number,
        {arm: [pair for one in rounds for pair in one.pairs[arm]] for arm in rounds[0].pairs},
        sum(one.control_moved for one in rounds),
        _sum([one.answers for one in rounds]),
        _sum([one.tasks for one in rounds]),
        _sum([one.feed for one in rounds]),
        _sum([one.refine for one in rounds]),
        _sum([one.distil for one in rounds]),
        _sum([one.drift for one in rounds]),
    )


def _sum(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts added up, by name and by the names beneath; whatever else one after another."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        if all(isinstance(value, dict) for value in values):
            found[name] = _sum(values)
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            found[name] = sum(values)
        elif all(isinstance(value, list) for value in values):
            found[name] = [one for value in values for one in value]
        else:
            found[name] = values
    return found
