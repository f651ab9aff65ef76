"""The firewall: what is held out stays out, reworded or derived, and clean rows pass."""

from __future__ import annotations

import itertools
import random

import pytest

from services.observerd.core.distill.firewall import Firewall, Pair
from services.observerd.core.distill.lineage import find_taints

TOPICS = (
    "printer toner drawer tray paper jam roller fuser scanner duplex cable driver spool ink "
    "invoice ledger audit tax receipt refund voucher salary bonus payroll pension claim budget "
    "harvest tractor barley silo manure orchard plough seed irrigation meadow fence cattle sheep "
    "violin cello rehearsal score baritone stage curtain ballet costume lantern overture choir"
).split()
GLUE = "the a of to and in on for with by from at".split()


def make_text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choice(TOPICS if at % 3 else GLUE) for at in range(words))


def make_pairs(name: str, seed: int, count: int = 150) -> list[Pair]:
    dice = random.Random(seed)
    return [
        Pair(f"{name}{at}", make_text(dice, 12) + "?", make_text(dice, 45)) for at in range(count)
    ]


def edit(text: str, rate: float, dice: random.Random) -> str:
    words: list[str] = []
    for word in text.split():
        if dice.random() >= rate:
            words.append(word)
        elif dice.random() < 0.6:
            words.append(dice.choice(TOPICS))
        elif dice.random() < 0.5:
            words += [word, dice.choice(TOPICS)]
    return " ".join(words)


HELD = make_pairs("h", 1)
WALL = Firewall(HELD)


@pytest.mark.parametrize(("rate", "least"), [(0.0, 1.0), (0.1, 0.99), (0.2, 0.95), (0.3, 0.80)])
def test_leaks_are_found_at_every_rate_of_edits(rate: float, least: float) -> None:
    dice = random.Random(2)
    found = [
        WALL.check_row(Pair("x", edit(p.prompt, rate, dice), edit(p.answer, rate, dice)))
        for p in HELD
    ]
    assert sum(one.decision != "clear" for one in found) / len(found) >= least


def test_clean_rows_pass() -> None:
    rows = make_pairs("c", 3, 400)
    stopped = [row.id for row in rows if WALL.check_row(row).decision != "clear"]
    assert len(stopped) <= 2


# Words as languages have them: few are common, most are rare.
VOCABULARY = [f"{word}{ending}" for ending in ("", *"bcdfghjklmnp") for word in TOPICS]
ZIPF = list(itertools.accumulate(1 / (rank + 5) for rank in range(len(VOCABULARY))))


def make_speech(name: str, seed: int, count: int = 200) -> list[Pair]:
    dice = random.Random(seed)

    def say(words: int) -> str:
        said = dice.choices(VOCABULARY, cum_weights=ZIPF, k=words)
        return " ".join(GLUE[at % 11] if at % 3 == 2 else word for at, word in enumerate(said))

    return [Pair(f"{name}{at}", say(dice.randrange(9, 16)), say(45)) for at in range(count)]


SPOKEN = make_speech("h", 21)
SPEECH_WALL = Firewall(SPOKEN)


@pytest.mark.parametrize("part", ["prompt", "answer"])
@pytest.mark.parametrize(("rate", "least"), [(0.1, 0.99), (0.2, 0.95), (0.3, 0.80)])
def test_one_edited_field_beside_a_strangers_is_found(part: str, rate: float, least: float) -> None:
    dice = random.Random(8)
    found = 0
    for pair, stranger in zip(SPOKEN, make_speech("c", 9), strict=True):
        prompt = edit(pair.prompt, rate, dice) if part == "prompt" else stranger.prompt
        answer = edit(pair.answer, rate, dice) if part == "answer" else stranger.answer
        clearance = SPEECH_WALL.check_row(Pair("x", prompt, answer))
        found += any(hit.held_out == pair.id for hit in clearance.hits)
    assert found / len(SPOKEN) >= least


def test_an_edited_copy_inside_a_longer_text_is_found() -> None:
    dice = random.Random(10)
    for pair, stranger in zip(SPOKEN[:30], make_speech("c", 11, 30), strict=True):
        inside = f"{stranger.answer} {edit(pair.answer, 0.2, dice)} {stranger.prompt}"
        assert SPEECH_WALL.check_row(Pair("x", "q", inside)).decision != "clear"


def test_clean_speech_passes() -> None:
    rows = make_speech("c", 13, 600)
    assert sum(SPEECH_WALL.check_row(row).decision != "clear" for row in rows) <= 3


def test_the_same_words_in_another_order_are_no_copy() -> None:
    for pair in SPOKEN[:30]:
        words = pair.answer.split()
        random.Random(12).shuffle(words)
        found = SPEECH_WALL.check_row(Pair("x", "q", " ".join(words)))
        assert not any(hit.test == "edited" for hit in found.hits)


def test_a_question_of_one_word_is_known_again_and_a_short_answer_is_not() -> None:
    wall = Firewall([Pair("h", "Meniscus?", "No")])
    assert wall.check_row(Pair("x", "meniscus", "A curve.")).reason == "stopped: exact"
    assert wall.check_row(Pair("x", "Is it flat?", "No")).decision == "clear"


def test_texts_too_long_to_align_are_left_to_their_grams() -> None:
    long = " ".join(f"{word} the" for word in TOPICS * 12)
    wall = Firewall([Pair("h", "q", long)])
    found = wall.check_row(Pair("x", "p", f"{long} more of it"))
    assert found.reason == "stopped: coverage"


@pytest.mark.parametrize("part", ["prompt", "answer"])
def test_a_leak_in_one_field_alone_is_stopped(part: str) -> None:
    clean = make_pairs("c", 4, 1)[0]
    for pair in HELD[:20]:
        row = (
            Pair("x", pair.prompt.upper(), clean.answer)
            if part == "prompt"
            else Pair("x", clean.prompt, f"  {pair.answer}!")
        )
        found = WALL.check_row(row)
        assert found.decision == "stopped"
        assert found.reason == "stopped: exact"
        assert found.hits[0].held_out == pair.id


def test_a_copy_inside_a_longer_text_is_stopped() -> None:
    clean = make_pairs("c", 5, 1)[0]
    found = WALL.check_row(Pair("x", "q", f"{clean.answer} {HELD[0].answer} {clean.answer}"))
    assert found.decision == "stopped"
    assert any(hit.test == "coverage" for hit in found.hits)


def test_a_single_shared_run_of_eight_words_goes_to_quarantine() -> None:
    eight = " ".join(HELD[0].answer.split()[10:18])
    found = WALL.check_row(Pair("x", "q", f"{make_text(random.Random(6), 30)} {eight} zebra"))
    assert found.decision == "quarantined"
    assert any(hit.test == "ngram" for hit in found.hits)


@pytest.mark.parametrize(
    "short", ["cancel my gym contract today", "what is the tallest barn in Utah"]
)
def test_short_texts_are_found_whole_alone_and_inside_others(short: str) -> None:
    wall = Firewall([Pair("h", short, "")])
    assert wall.check_row(Pair("x", short.title() + "!!", "other")).decision == "stopped"
    inside = wall.check_row(Pair("x", "q", f"Somebody asked me: {short}? I did not know."))
    assert (inside.decision, inside.hits[0].test) == ("stopped", "short")
    other = " ".join(reversed(short.split()))
    assert wall.check_row(Pair("x", "q", other)).decision == "clear"


def test_an_answer_that_is_everybodys_counts_only_with_its_prompt() -> None:
    wall = Firewall([Pair("h", "Does the moon have an atmosphere?", "Yes")])
    assert wall.check_row(Pair("x", "Is barley a cereal?", "Yes.")).decision == "clear"
    both = wall.check_row(Pair("x", "Does the moon have an atmosphere", "yes"))
    assert both.decision == "stopped"


def test_a_prompt_and_answer_split_elsewhere_are_found_joined() -> None:
    words = f"{HELD[3].prompt} {HELD[3].answer}".split()
    moved = Pair("x", " ".join(words[:20]), " ".join(words[20:]))
    found = WALL.check_row(moved)
    assert any((hit.test, hit.where) == ("exact", "joined") for hit in found.hits)


def test_turns_of_phrase_are_nobodys() -> None:
    wall = Firewall([Pair("h", "I would like to know how I can do this with my lantern", "x y z")])
    row = Pair("x", "I would like to know how I can do this with my tractor", "other words")
    assert wall.check_row(row).decision == "clear"


def test_addresses_do_not_make_a_phrase() -> None:
    link = "http://www.example.com/support/bin/answer.py?hl=en&answer="
    wall = Firewall([Pair("h", "where is it", f"look at {link}17 and press the green button")])
    assert wall.check_row(Pair("x", "q", f"read {link}99 before supper")).decision == "clear"


def test_likeness_by_embedding_quarantines() -> None:
    row = make_pairs("c", 7, 1)[0]
    assert WALL.check_row(row, similar=[("h1", 0.5)]).decision == "clear"
    found = WALL.check_row(row, similar=[("h1", 0.97)])
    assert (found.decision, found.reason) == ("quarantined", "quarantined: similar")


PARENTS = {
    "run": ["summary", "doc"],
    "summary": ["translation"],
    "translation": ["held"],
    "doc": [],
    "loop": ["loop2"],
    "loop2": ["loop"],
    "orphan": ["lost"],
    "fine": ["doc"],
}


def test_taint_is_inherited_over_any_number_of_steps() -> None:
    found = find_taints(["run", "fine", "loop", "held", "orphan", "gone"], PARENTS, {"held"})
    assert set(found) == {"run", "held", "orphan", "gone"}
    assert found["run"].path == ("run", "summary", "translation", "held")
    assert not found["run"].unknown
    assert found["held"].path == ("held",)
    assert found["orphan"].unknown
    assert found["orphan"].reason == "lineage unknown: orphan <- lost <- unknown"


def test_taint_beats_a_clean_text_and_silence_is_quarantined() -> None:
    row = make_pairs("c", 8, 1)[0]
    taints = find_taints(["run", "orphan"], PARENTS, {"held"})
    assert WALL.check_row(row, taint=taints["run"]).reason == "stopped: lineage"
    assert WALL.check_row(row, taint=taints["orphan"]).reason == "quarantined: lineage"
