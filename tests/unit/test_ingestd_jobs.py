"""What is preferred, how far a job is, and what an upsert fetches: decisions alone."""

from __future__ import annotations

import hashlib
import json

import pytest

from services.ingestd.core.job import Limits
from services.ingestd.core.merging import Merge, footer_length, group_by_size, join_ranges
from services.ingestd.core.options import Options, make_ingest_id, options_from
from services.ingestd.core.prefer import Preference, check_key, parse_prefer
from services.ingestd.core.progress import Track
from services.ingestd.core.requested import parse_key
from shared.errors import Invalid


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preference()),
        (["respond-async"], Preference(background=True)),
        (["Respond-Async; foo=bar, WAIT=10"], Preference(background=True, wait_s=10.0)),
        (["return=minimal", 'wait="5", respond-async'], Preference(background=True, wait_s=5.0)),
        (["wait=3, wait=9"], Preference(wait_s=3.0)),
        (["wait=-1, wait=x"], Preference()),
        (["wait=999999999"], Preference(wait_s=86_400.0)),
        (["respond-async=false garbage ; ;"], Preference()),
    ],
)
def test_preferences_are_read_as_the_rfc_writes_them(
    headers: list[str], expected: Preference
) -> None:
    assert parse_prefer(headers) == expected


def test_what_was_applied_is_said() -> None:
    assert Preference().applied() == ""
    assert Preference(background=True, wait_s=2.0).applied() == "respond-async, wait=2"


def test_an_idempotency_key_is_visible_text() -> None:
    assert check_key(None) is None
    assert check_key("a b") == "a b"
    for bad in ("", "a\tb", "x" * 201, "é"):
        with pytest.raises(Invalid):
            check_key(bad)


def test_stages_are_kept_and_figures_overtaken() -> None:
    track = Track()
    track.hear({"event": "stage", "name": "sniff"})
    track.hear({"event": "stage", "name": "open"})
    track.hear({"event": "progress", "bytes_read": 5, "bytes_total": 10, "rows": 1, "other": 7})
    track.hear({"event": "stage", "name": "something new"})
    track.hear({"event": "progress", "bytes_read": 9, "rows": 2})
    told = track.since(0)
    stages = [figures["stage"] for _, figures in told]
    assert stages == ["queued", "sampling", "converting", "converting"]
    assert told[-1][1]["rows"] == 2
    assert [number for number, _ in told] == sorted({number for number, _ in told})
    assert track.since(told[-1][0]) == []
    track.enter("storing")
    assert track.now.bytes_read == track.now.bytes_total == 10


def test_a_key_is_columns_by_commas() -> None:
    assert parse_key("append", None) == ()
    assert parse_key("upsert", "id") == ("id",)
    assert parse_key("upsert", 'site, "a,b","say ""x"""') == ("site", "a,b", 'say "x"')
    for bad in (None, "", ",", "a,", "a,A", '"a', "a\nb,c"):
        with pytest.raises(Invalid):
            parse_key("upsert", bad)
    with pytest.raises(Invalid):
        parse_key("replace", "id")


def test_ids_of_ingests_without_a_key_stay_what_they_were() -> None:
    plain = {
        "mode": "append",
        "contract": "freeze",
        "header": None,
        "delimiter": None,
        "quote": None,
        "escape": None,
        "encoding": None,
    }
    text = json.dumps(
        {"version": 1, "input": "i", "options": plain, "dataset": "d", "repetition": 0},
        sort_keys=True,
        separators=(",", ":"),
    )
    assert make_ingest_id("i", Options(), "d") == hashlib.sha256(text.encode()).hexdigest()
    one = Options(mode="upsert", key=("a", "b"))
    assert make_ingest_id("i", one, "d") != make_ingest_id("i", Options(mode="upsert"), "d")
    assert options_from({"mode": "upsert", "key": ["a", "b"]}) == one


def test_footers_tell_their_length() -> None:
    assert footer_length((300).to_bytes(4, "little") + b"PAR1") == 308
    assert footer_length(b"\0\0\0\0PARE") is None
    assert footer_length(b"PAR1") is None


def test_near_ranges_are_fetched_as_one() -> None:
    assert join_ranges([(100, 10), (0, 10), (15, 5)], 8) == [(0, 20), (100, 10)]
    assert join_ranges([(0, 50), (10, 5)], 0) == [(0, 50)]
    assert join_ranges([], 9) == []


def test_small_files_are_rewritten_together() -> None:
    sizes = {"a": 60, "b": 30, "c": 30, "d": 200, "e": 1}
    assert group_by_size(sizes, 100) == [("a", "b"), ("c",), ("d",), ("e",)]
    assert group_by_size({}, 100) == []


def test_a_step_survives_its_way_to_the_worker() -> None:
    step = Merge("match", "f", "i", ("id",), (("id", "BIGINT"),), ("p",), ("t",), Limits())
    assert Merge.from_json(json.loads(json.dumps(step.to_json()))) == step
