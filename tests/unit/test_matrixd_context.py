"""What reaches the model: the downgrade gate, token counts, composed context, episodes."""

from __future__ import annotations

import pytest

from services.matrixd.core.budget import MIN_CUT_TOKENS, count_tokens, cut_text
from services.matrixd.core.compose import Piece, compose
from services.matrixd.core.downgrade import decide_mode
from services.matrixd.core.episodes import (
    Entry,
    basis_of,
    check_ratings,
    check_repeat,
    choose_retired,
    hash_body,
    name_episode,
)
from shared.errors import Conflict, Invalid, Unprocessable
from shared.sections.matrix import ModelsSection
from shared.wire.matrixd_playbook import RecordRequest, RetireRequest

TIERS = {"local_fast": "small:latest", "frontier": "cloud/large"}


@pytest.mark.parametrize(
    ("mode", "model", "force", "after", "downgraded"),
    [
        ("composed", "cloud/large", False, "isolated", True),
        ("composed", "cloud/large", True, "composed", False),
        ("composed", "small:latest", False, "composed", False),
        ("composed", "ollama/Small", False, "composed", False),
        ("composed", "tier/local_fast", False, "composed", False),
        ("composed", "tier/frontier", False, "isolated", True),
        ("isolated", "cloud/large", False, "isolated", False),
        ("isolated", "small", True, "isolated", False),
    ],
)
def test_strong_models_are_downgraded_unless_forced_or_listed(
    mode: str, model: str, force: bool, after: str, downgraded: bool
) -> None:
    got = decide_mode(mode, model, force=force, weak_models=["small:latest"], tiers=TIERS)
    assert (got.mode, got.downgraded) == (after, downgraded)
    assert got.reason


@pytest.mark.parametrize(
    ("mode", "model", "says"),
    [("both", "m", "no mode"), ("composed", "  ", "name a model"), ("composed", "tier/x", "tier")],
)
def test_the_gate_refuses_what_it_does_not_know(mode: str, model: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        decide_mode(mode, model, force=False, weak_models=(), tiers=TIERS)


def test_the_shipped_tiers_route_to_their_provider() -> None:
    models = ModelsSection()
    assert models.cloud_review.startswith("ollama_cloud/")
    assert models.local_fast in models.weak_models


def test_tokens_are_counted_on_the_high_side_and_texts_cut_at_words() -> None:
    assert count_tokens("") == 0
    assert count_tokens("the cat") == 2
    assert count_tokens("internationalisation 2026") == 7
    assert count_tokens("漢字") >= 2
    text = "one two three four five six seven eight"
    cut = cut_text(text, 5)
    assert count_tokens(cut) <= 5
    assert cut.endswith(" …")
    assert text.startswith(cut.removesuffix(" …"))
    assert cut_text(text, 100) == text
    assert cut_text("incomprehensibilities", 2) == ""


def test_blanks_and_digits_of_any_script_count() -> None:
    assert count_tokens("a b\tc\nd") == 6
    assert count_tokens("\n" * 500) == 500
    assert count_tokens("٣٤٥٦٧٨" * 10) >= 60


def test_a_text_without_blanks_is_cut_too() -> None:
    text = "夜勤の看護師を募集しています。" * 100
    cut = cut_text(text, 60)
    assert 40 < count_tokens(cut) <= 60
    assert text.startswith(cut.removesuffix(" …"))
    after = cut_text("Nurses wanted: " + text, 60)
    assert len(after) > len("Nurses wanted: …")
    assert count_tokens(after) <= 60
    assert cut_text("x" * 4000, 60) == ""


def piece(name: str, text: str, score: float = 0.5) -> Piece:
    return Piece("c", name, text, score)


def test_context_cites_what_it_holds_and_stays_in_the_budget() -> None:
    pieces = [piece("a", "alpha " * 20), piece("b", "beta " * 20), piece("c", "gamma " * 400)]
    for budget in (60, 120, 180, 400, 3000):
        made = compose("what is it?", pieces, budget, system="Be brief.", isolated=False)
        assert made.tokens <= budget
        assert len(made.citations) + len(made.left_out) == 3
        assert made.messages[0].content == "Be brief."
        assert made.messages[-1].content == "what is it?"
        for citation in made.citations:
            assert f"[{citation.number}] c/{citation.id}: " in made.messages[1].content
    assert [c.id for c in made.citations] == ["a", "b", "c"]
    assert not any(c.cut for c in made.citations)


def test_the_last_document_is_shortened_when_enough_of_it_fits() -> None:
    whole = compose("q", [piece("a", "word " * 300)], 5000, system=None, isolated=False)
    half = compose("q", [piece("a", "word " * 300)], whole.tokens // 2, system=None, isolated=False)
    assert half.citations[0].cut
    assert half.citations[0].tokens > MIN_CUT_TOKENS


def test_the_same_text_twice_goes_in_once() -> None:
    made = compose("q", [piece("a", "x  y"), piece("b", "x y")], 500, system=None, isolated=False)
    assert [c.id for c in made.citations] == ["a"]
    assert made.left_out[0].reason == "says the same as [1]"


def test_the_isolated_mode_and_empty_findings_send_the_query_alone() -> None:
    alone = compose("q?", [piece("a", "x")], 500, system=None, isolated=True)
    assert [m.content for m in alone.messages] == ["q?"]
    assert alone.left_out[0].reason == "isolated mode"
    assert compose("q?", [], 500, system=None, isolated=False).messages == alone.messages


def test_a_budget_below_the_query_is_refused() -> None:
    with pytest.raises(Unprocessable, match="token_budget is 3"):
        compose("a fairly long question", [], 3, system=None, isolated=False)


def request(*ratings: tuple[str, str, int], **more: object) -> RecordRequest:
    found = [{"corpus": c, "id": i, "rating": r} for c, i, r in ratings]
    return RecordRequest.model_validate({"query": "q", "ratings": found, **more})


def test_ratings_are_ordered_once_each_and_never_two_ways() -> None:
    one = check_ratings(request(("b", "1", 1), ("a", "2", 0), ("b", "1", 1)), 10)
    assert [(r.corpus, r.id) for r in one] == [("a", "2"), ("b", "1")]
    with pytest.raises(Invalid, match="both 1 and -1"):
        check_ratings(request(("a", "1", 1), ("a", "1", -1)), 10)
    with pytest.raises(Invalid, match="at most 1"):
        check_ratings(request(("a", "1", 1), ("a", "2", 1)), 1)
    with pytest.raises(Invalid, match="blank"):
        check_ratings(request(("a", "1", 1), query=" "), 10)


def entry(name: str, body: str, retired: bool = False, **more: str | None) -> Entry:
    return Entry(
        id=name,
        seq=1,
        basis=body,
        body=body,
        query="q",
        ratings=(),
        source=more.get("source") or "human",
        run_id=more.get("run_id"),
        corpora=(),
        models=(),
        recorded_at="t",
        retired_at="t" if retired else None,
    )


def test_an_episode_is_known_by_what_it_says_or_by_its_key() -> None:
    first = request(("a", "1", 1), ("b", "2", -1))
    again = request(("b", "2", -1), ("a", "1", 1))
    body = hash_body(first, check_ratings(first, 9))
    assert body == hash_body(again, check_ratings(again, 9))
    other = request(("a", "1", 1), ("b", "2", -1), run_id="r")
    assert body != hash_body(other, check_ratings(other, 9))
    name, basis = name_episode(body, None, [])
    assert basis == basis_of(body, None) == body
    # Once retired, the same may be recorded anew.
    assert name_episode(body, None, [entry(name, body, retired=True)])[0] != name
    keyed, _ = name_episode(body, "k", [])
    assert keyed == name_episode("other", "k", [entry(keyed, body, retired=True)])[0]
    check_repeat(entry(name, body), body)
    with pytest.raises(Conflict, match="Idempotency-Key"):
        check_repeat(entry(name, body), "other")


def test_retirements_say_in_one_way_which_episodes() -> None:
    entries = [entry("1", "a"), entry("2", "b", source="bot"), entry("3", "c", run_id="r")]

    def chosen(**more: object) -> list[str]:
        return [e.id for e in choose_retired(RetireRequest.model_validate(more), entries)]

    assert chosen(all=True) == ["1", "2", "3"]
    assert chosen(source="bot") == ["2"]
    assert chosen(run_id="r") == ["3"]
    assert chosen(episode_ids=["1", "9"]) == ["1"]
    for wrong in ({}, {"all": True, "source": "bot"}):
        with pytest.raises(Invalid, match="give one of"):
            chosen(**wrong)


def test_an_id_cannot_begin_another_source() -> None:
    odd = piece("a: x\n[2] c/b", "text")
    made = compose("q", [odd], 500, system=None, isolated=False)
    assert made.citations[0].id == odd.id
    assert made.messages[0].content.splitlines()[-1] == "[1] c/a: x [2] c/b: text"
    assert made.tokens <= 500


def test_a_query_of_blanks_does_not_pass_for_a_short_one() -> None:
    with pytest.raises(Unprocessable):
        compose("q" + "\n" * 5000, [], 100, system=None, isolated=False)
