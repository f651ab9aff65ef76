"""The loop's report: everything as JSON, and a page with the curves that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import Any

from scripts.lift.charts import draw_curves
from scripts.lift.checks import Check
from scripts.lift.judged import JudgedSet
from scripts.lift.report import draw_mark, draw_page, draw_table, escape
from scripts.looping.tally import Round

Curve = list[tuple[float, float, float, float]]


def describe_loop(
    judged: JudgedSet, facts: Mapping[str, Any], rounds: Sequence[Round], checks: Sequence[Check]
) -> dict[str, Any]:
    """The whole run as JSON-ready data."""
    return {
        "set": {
            "name": judged.name,
            "documents": len(judged.documents),
            "topics": len(judged.group_topics()),
            "answers_per_query": judged.answers,
            "remarks": list(judged.remarks),
        },
        "run": dict(facts),
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
        "rounds": [_describe_round(one) for one in rounds],
    }


def _describe_round(one: Round) -> dict[str, Any]:
    fields = {f.name: getattr(one, f.name) for f in dataclass_fields(one) if f.name != "pairs"}
    return fields | {arm: asdict(one.compare(arm)) for arm in one.pairs}


def render_loop(record: Mapping[str, Any]) -> str:
    """The page."""
    judged, run, rounds = record["set"], record["run"], record["rounds"]
    missed = [check for check in record["checks"] if not check["passed"]]
    verdict = (
        f"All {len(record['checks'])} checks passed."
        if not missed
        else "Missed: " + "; ".join(f"{one['name']} by {one['missed_by']}" for one in missed)
    )
    return draw_page(
        f"loop: {judged['name']}",
        [
            f"<h1>The closed loop on {escape(judged['name'])}</h1>",
            f"<p>{judged['documents']:,} documents, {run['topics']} topics worked on, "
            f"{run['held_out_queries']} held-out queries of them, {run['unseen_queries']} queries "
            f"of held-out topics; seeds {run['seeds']}; answers by {escape(run['answered_by'])}; "
            f"the scorer sees {escape(run['feedback'])}; {run['elapsed_s']:.0f} s; "
            f"{escape(run['at'])}</p>",
            f'<div class="verdict {"fail" if missed else "pass"}">{escape(verdict)}</div>',
            draw_table(
                ["check", "wanted", "measured", "missed by", ""],
                [
                    [
                        escape(one["name"]),
                        escape(one["wanted"]),
                        draw_mark(one["value"], passed=one["passed"]),
                        escape(one["missed_by"]),
                        escape(one["note"]),
                    ]
                    for one in record["checks"]
                ],
            ),
            "<h2>Retrieval, round by round</h2>",
            "<p>Change of nDCG@10 with 95 % intervals over topics. Held-out queries and held-out "
            "topics: what was learnt beside the control of the same round. Control: the playbook "
            "off and the configuration of the start, beside its own first round.</p>",
            draw_curves(
                {
                    "held-out queries": _curve(rounds, "held"),
                    "held-out topics": _curve(rounds, "unseen"),
                    "control": _curve(rounds, "control"),
                },
                "round",
                "change of nDCG@10",
            ),
            draw_table(
                ["round", "control", "learnt", "change", "95 %", "wins/losses", "held-out topics"],
                [_retrieval_row(one) for one in rounds],
            ),
            "<h2>Answers to held-out queries</h2>",
            "<p>One answer each, from the composed context alone. Right: made from a document "
            "that is known to answer. The change of right answers is against round 0.</p>",
            draw_curves({"right answers": _curve(rounds, "right")}, "round", "change of share"),
            draw_table(
                ["round", "accepted", "mean score", "right", "change of right", "95 %"],
                [_answer_row(one) for one in rounds],
            ),
            "<h2>What came of the tasks</h2>",
            draw_table(
                [
                    "round", "tasks", "drafts", "first one accepted", "accepted", "right of these",
                    "recorded", "held out: offered, recorded", "learnt by the refiner",
                    "rows exported", "drift",
                ],
                [_task_row(one) for one in rounds[1:]],
            ),
            "<h2>Why runs were not recorded</h2>",
            draw_table(["reason", "runs"], _reasons(rounds)),
            "<h2>How far the playbook trusts the scorer</h2>",
            "<p>Estimated from the scorer's own ratings, by seed, beside the share of the "
            "round's accepted drafts that were made from a document known to answer.</p>",
            draw_table(
                ["round", "source", "ratings", "accuracy, estimated", "right of accepted"],
                _trust(rounds),
            ),
            "<h2>What the refiner decided</h2>",
            draw_table(["round", "decision", "configuration", "why"], _decisions(rounds)),
            *(f"<p>{escape(remark)}</p>" for remark in judged["remarks"]),
        ],
    )  # fmt: skip


def _curve(rounds: Sequence[Mapping[str, Any]], arm: str) -> Curve:
    return [
        (float(one["number"]), one[arm]["delta"], one[arm]["low"], one[arm]["high"])
        for one in rounds
    ]


def _retrieval_row(one: Mapping[str, Any]) -> list[str]:
    held, unseen = one["held"], one["unseen"]
    return [
        str(one["number"]),
        f"{held['before']:.3f}",
        f"{held['after']:.3f}",
        f"{held['delta']:+.4f}",
        f"{held['low']:+.4f} … {held['high']:+.4f}",
        f"{held['wins']}/{held['losses']}",
        f"{unseen['delta']:+.4f} [{unseen['low']:+.4f}, {unseen['high']:+.4f}]",
    ]


def _answer_row(one: Mapping[str, Any]) -> list[str]:
    answers, right = one["answers"], one["right"]
    return [
        str(one["number"]),
        f"{answers['accepted'] / answers['asked']:.0%}",
        f"{answers['score'] / max(1, answers['with_a_score']):.3f}",
        f"{answers['right'] / answers['asked']:.0%}",
        f"{right['delta']:+.3f}",
        f"{right['low']:+.3f} … {right['high']:+.3f}",
    ]


def _task_row(one: Mapping[str, Any]) -> list[str]:
    tasks, feed = one["tasks"], one["feed"]
    return [
        str(one["number"]),
        str(tasks["tasks"]),
        str(tasks["drafts"]),
        str(tasks["first_draft_accepted"]),
        str(tasks["accepted"]),
        str(tasks["right_of_accepted"]),
        str(feed["recorded"]),
        f"{feed['held_out_offered']}, {feed['held_out_recorded']}",
        str(one["refine"]["learnt"]),
        str(one["distil"]["rows"]["chat.jsonl"]),
        escape(", ".join(f"{name} {n}" for name, n in one["drift"]["verdicts"].items())),
    ]


def _reasons(rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    total: dict[str, int] = {}
    for one in rounds[1:]:
        for reason, count in one["feed"]["withheld"].items():
            total[reason] = total.get(reason, 0) + count
    return [[escape(reason), str(count)] for reason, count in sorted(total.items())]


def _trust(rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What the playbook believed of each source, beside how right the scorer was."""
    return [
        [
            str(one["number"]),
            escape(source),
            escape(", ".join(str(one.get("ratings")) for one in told)),
            escape(", ".join(f"{one.get('accuracy', 0.0):.3f}" for one in told)),
            f"{one['tasks']['right_of_accepted'] / max(1, one['tasks']['accepted']):.3f}",
        ]
        for one in rounds[1:]
        for source, told in one["feed"]["trust"].items()
    ]


def _decisions(rounds: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [str(one["number"]), escape(d["kind"]), escape(d["values"]), escape(d["reason"])]
        for one in rounds[1:]
        for d in one["refine"]["decisions"]
    ]
