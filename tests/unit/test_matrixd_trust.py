"""What a source's ratings tell of it: judges whose error is known, rating lists of cold search."""

from __future__ import annotations

import random

import pytest

from services.matrixd.core.playbook.trust import Statements, Tally, Trust, estimate_trust


def judge(seed: int, rate: float, lists: int = 60) -> Trust:
    """A judge that errs at a rate, where cold search tells little of what is right."""
    dice = random.Random(seed)
    tally = Tally()
    for _ in range(lists):
        logits = sorted((dice.gauss(-1.5, 1.2) for _ in range(10)), reverse=True)
        # In two lists of five nothing is right.
        answer = dice.choices(range(11), [4, 2, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 8])[0]
        for place, logit in enumerate(logits):
            tally.count((logit, (place == answer) != (dice.random() < rate)))
    return estimate_trust(tally)


def test_nobody_has_to_earn_the_first_trust() -> None:
    new = estimate_trust(Tally())
    assert new.positive > 3.0
    assert new.clarity > 0.9
    assert new.ratings == 0


def test_worth_neither_jumps_to_nothing_nor_beyond_what_is_true() -> None:
    """The most probable figures alone gave one of these 30 honest judges 1.1, four others 0."""
    honest = [judge(seed, 0.0).positive for seed in range(30)]
    assert min(honest) > 2.0
    erring = [judge(seed, 0.2).positive for seed in range(30)]
    assert min(erring) > 0.1
    assert max(erring) < 1.5
    coins = [judge(seed, 0.45).positive for seed in range(30)]
    assert max(coins) < 1.0
    assert sum(honest) / 30 > 2.0 > sum(erring) / 30 > sum(coins) / 30


@pytest.mark.parametrize("is_positive", [True, False])
def test_only_praise_or_only_blame_tells_nothing(is_positive: bool) -> None:
    tally = Tally()
    for _ in range(50):
        tally.count((2.0, is_positive))
    found = estimate_trust(tally)
    assert found.ratings == 50
    assert found.accuracy > 0.9


def test_the_last_word_counts_once_and_a_copy_goes_on_by_itself() -> None:
    heard = Statements()
    heard.add(("judge", "q"), {("c", "a"): (1.0, True), ("c", "b"): (-1.0, False)})
    later = heard.copy("judge")
    later.add(("judge", "q"), {("c", "a"): (1.0, False), ("c", "z"): (0.0, True)})
    later.add(("other", "q"), {("c", "a"): (1.0, True)})
    assert set(heard.tallies) == {"judge"}
    assert (sum(heard.tallies["judge"].positives), sum(heard.tallies["judge"].negatives)) == (1, 1)
    assert (sum(later.tallies["judge"].positives), sum(later.tallies["judge"].negatives)) == (1, 2)
    assert sum(later.tallies["other"].positives) == 1
