"""Verdicts of reviewers: what is read of them, and the table that people fill."""

from __future__ import annotations

from scripts.scrum.verdicts import (
    OPEN,
    Verdict,
    find_convergent,
    put_section,
    read_dispositions,
    render_section,
)

OPUS = Verdict(
    "frontier_review",
    "a/b",
    "INFO | docs/x.md:3 | unclear\n"
    "BLOCK | services/x.py:10 | loses | the last row\n"
    "- **WARN** | `services/y.py` | never closed\n\nReasoning: BLOCK is meant.\n",
)
KIMI = Verdict("frontier_arch", "c/d", "BLOCK | services/x.py:13 | off by one\n")
QWEN = Verdict("cloud_review", "e", "NONE\n\nAll is well.")


def test_findings_are_read_most_severe_first() -> None:
    found = [(f.severity, f.where, f.what) for f in OPUS.findings]
    assert found == [
        ("BLOCK", "services/x.py:10", "loses | the last row"),
        ("WARN", "services/y.py", "never closed"),
        ("INFO", "docs/x.md:3", "unclear"),
    ]
    assert OPUS.findings[0].place == ("services/x.py", 10)
    assert OPUS.findings[1].place == ("services/y.py", 0)
    assert QWEN.findings == []
    assert QWEN.is_readable
    assert not Verdict("x", "m", "Looks good to me!").is_readable


def test_what_two_lineages_say_of_one_place_is_convergent() -> None:
    findings = [*OPUS.findings, *KIMI.findings]
    assert find_convergent(findings) == {OPUS.findings[0].id, KIMI.findings[0].id}


def test_dispositions_survive_another_run() -> None:
    page = put_section("", "one", render_section("one", [OPUS, KIMI, QWEN], {}))
    block = OPUS.findings[0].id
    assert read_dispositions(page)[block] == OPEN
    line = next(line for line in page.splitlines() if block in line)
    page = page.replace(line, line.replace(f"| {OPEN} |", "| fixed in 1a2b |"))
    page = put_section(page, "two", render_section("two", [QWEN], read_dispositions(page)))
    again = render_section("one", [OPUS, KIMI, QWEN], read_dispositions(page))
    page = put_section(page, "one", again)
    assert read_dispositions(page)[block] == "fixed in 1a2b"
    assert page.count("## one") == page.count("## two") == page.count("# Dispositions") == 1
    assert page.count(block) == 1


def test_a_reviewer_that_failed_is_told() -> None:
    failed = Verdict("cloud_review", "?", "", "it is not registered")
    section = render_section("one", [failed, Verdict("x", "m", "Looks good!")], {})
    assert "gave no verdict: it is not registered" in section
    assert "did not keep to the form" in section
