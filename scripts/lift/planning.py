"""What is recorded and what is asked, for one seed.

Half of the topics are recorded; the others are the control that must not suffer. Of a recorded
topic one query is held out, the others are recorded one after another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from scripts.lift.judged import JudgedSet, JudgedSetError, Query

SIZES = (1, 2, 4, 8)
# A size is tried when so many topics have queries enough, and they are so great a part.
FEWEST_TOPICS = 8
PART = 0.4


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed's plan.

    Attributes:
        recorded: per topic the queries that are recorded, in order.
        held: per topic the paraphrase that is never recorded; none where topics have one query.
        unseen: queries of topics of which nothing is recorded.
        sizes: recordings per topic after which everything is measured.
    """

    seed: int
    recorded: dict[str, list[Query]]
    held: dict[str, Query]
    unseen: list[Query]
    sizes: tuple[int, ...]


def choose_sizes(judged: JudgedSet, most: int) -> tuple[int, ...]:
    """Recordings per topic that the set allows, `most` at most; (1,) without paraphrases."""
    counts = [len(queries) for queries in judged.group_topics().values()]
    several = sum(count > 1 for count in counts)
    return tuple(
        size
        for size in SIZES
        if size <= most
        and (
            size == 1 or sum(count > size for count in counts) >= max(FEWEST_TOPICS, PART * several)
        )
    )


def make_plan(judged: JudgedSet, seed: int, most: int, topics: int) -> Plan:
    """The plan of one seed with up to `topics` recorded topics and as many others.

    Raises:
        JudgedSetError: the set has too few topics.
    """
    grouped = judged.group_topics()
    if len(grouped) < 4:
        raise JudgedSetError(
            f"{judged.name} has {len(grouped)} judged topics; at least 4 are needed, because half "
            "of them are recorded and the others are the control."
        )
    sizes = choose_sizes(judged, most)
    dice = random.Random(f"playbook_lift {seed}")
    paraphrased = any(len(queries) > 1 for queries in grouped.values())
    needed = sizes[-1] + 1 if paraphrased else 1
    names = sorted(grouped)
    dice.shuffle(names)
    rich = [name for name in names if len(grouped[name]) >= needed]
    half = min(topics, len(names) // 2, max(1, len(rich) - len(rich) // 3))
    seen = rich[:half]
    others = [name for name in names if name not in set(seen)]
    recorded: dict[str, list[Query]] = {}
    held: dict[str, Query] = {}
    for name in seen:
        chosen = dice.sample(grouped[name], needed)
        if paraphrased:
            held[name] = chosen.pop()
        recorded[name] = chosen
    unseen: list[Query] = []
    rounds = 1 if len(others) >= 2 * topics else 2
    for name in others[: 2 * topics]:
        unseen.extend(dice.sample(grouped[name], min(rounds, len(grouped[name]))))
    return Plan(seed, recorded, held, unseen, sizes)
