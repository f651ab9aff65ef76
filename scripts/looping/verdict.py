"""What is asked of a loop, and what was found: the exit status follows from this alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from scripts.lift.checks import ENOUGH_TOPICS, SLACK, UNSEEN_LOW, Check
from scripts.lift.measures import Comparison
from scripts.looping.tally import Round


def check_loop(rounds: Sequence[Round]) -> list[Check]:
    """Every check on the rounds; the first of them is the state before anything was learnt."""
    after = rounds[1:]
    last = after[-1]
    return [
        _check_gain(last.compare("held")),
        _check_no_fall(after),
        _check_flat(after),
        _check_unseen(after),
        _check_held_out(after),
        _check_same_again(after),
        _check_drift(after),
    ]


def _check_gain(held: Comparison) -> Check:
    enough = held.topics >= ENOUGH_TOPICS
    value = f"{held.delta:+.4f} [{held.low:+.4f}, {held.high:+.4f}]"
    if not enough:
        note = f"{held.topics} topics are too few to ask for a gain; {ENOUGH_TOPICS} would do"
        return Check("held-out metric, last round", "told only", value, True, note=note)
    passed = held.low > 0
    missed = "" if passed else f"{max(-held.low, 0.0):.4f}"
    return Check("held-out metric, last round", "interval above 0", value, passed, missed)


def _check_no_fall(after: Sequence[Round]) -> Check:
    found = [one.compare("held") for one in after]
    worst = min(found, key=lambda one: one.delta)
    # A fall is a mean below the slack, or a smaller one that is sure.
    passed = worst.delta >= -SLACK and all(one.high >= 0 for one in found)
    missed = "" if passed else f"{max(-worst.delta - SLACK, 0):.4f}"
    return Check(
        "held-out metric never falls", f">= {-SLACK}", f"{worst.delta:+.4f}", passed, missed
    )


def _check_flat(after: Sequence[Round]) -> Check:
    most = max(abs(one.compare("control").delta) for one in after)
    moved = sum(one.control_moved for one in after)
    note = f"{moved} answers of the control differ from the first ones"
    passed = most <= SLACK
    missed = "" if passed else f"{most - SLACK:.4f}"
    return Check(
        "control, playbook off, is flat", f"<= {SLACK}", f"{most:.4f}", passed, missed, note
    )


def _check_unseen(after: Sequence[Round]) -> Check:
    found = [one.compare("unseen") for one in after]
    low = min(one.low for one in found)
    topics = min(one.topics for one in found)
    worst, told, note = low, "low", ""
    if topics < ENOUGH_TOPICS:
        # One topic among so few moves the bound by more than that, as in playbook_lift.
        worst, told = min(one.delta for one in found), "mean"
        note = f"{topics} topics are too few for the bound ({low:+.4f})"
    passed = worst >= UNSEEN_LOW
    missed = "" if passed else f"{UNSEEN_LOW - worst:.4f}"
    return Check(
        "held-out topics unharmed", f"{told} >= {UNSEEN_LOW}", f"{worst:+.4f}", passed, missed, note
    )


def _check_held_out(after: Sequence[Round]) -> Check:
    got_in = sum(one.feed["held_out_recorded"] for one in after)
    offered = sum(one.feed["held_out_offered"] for one in after)
    missed = str(got_in) if got_in else ""
    value = f"{got_in} of {offered}"
    return Check("held-out runs recorded", "0", value, not got_in, missed)


def _check_same_again(after: Sequence[Round]) -> Check:
    differ = sum(one.distil["changed_again"] for one in after)
    missed = str(differ) if differ else ""
    return Check("exports that differ when made again", "0", str(differ), not differ, missed)


def _check_drift(after: Sequence[Round]) -> Check:
    counts = Counter[str]()
    for one in after:
        counts.update(one.drift["verdicts"])
    bent = counts["judge"]
    value = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    missed = str(bent) if bent else ""
    return Check("the scorer did not drift", "never judge", value, not bent, missed)
