"""The report: everything measured as JSON, and a page of it that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from scripts.lift.charts import draw_bars, draw_curves
from scripts.lift.checks import Check
from scripts.lift.judged import JudgedSet
from scripts.lift.measures import Comparison, Scores
from scripts.lift.trial import COLD_ARMS, Outcome

STYLE = """
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5c6b7a;--line:#d8dee5;--paper:#fff;
--good:#1a7f4b;--bad:#b3261e;--one:#2862a8;--two:#c26a00;--three:#7a5ea8}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#9aa8b5;--line:#344150;--paper:#141a21;
--good:#4cc38a;--bad:#ff7b72;--one:#79b0f2;--two:#f0a860;--three:#b79be6}}
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem}
p{color:var(--soft)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
td:nth-child(-n+4):not(:first-child){white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.note{text-align:left;color:var(--soft)}
.pass{color:var(--good);font-weight:600}.fail{color:var(--bad);font-weight:600}
.verdict{font-size:1.1rem;padding:.6rem 1rem;border-left:4px solid;margin:1rem 0}
.verdict.pass{border-color:var(--good)}.verdict.fail{border-color:var(--bad)}
svg{max-width:100%;height:auto}.wide{overflow-x:auto}
"""


def describe_run(
    judged: JudgedSet,
    seeds: Sequence[int],
    outcomes: Sequence[Outcome],
    arms: Mapping[str, Comparison],
    checks: Sequence[Check],
    baselines: Mapping[str, Mapping[str, Comparison]],
    latency: Mapping[str, float],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole run as JSON-ready data."""
    return {
        "set": {
            "name": judged.name,
            "documents": len(judged.documents),
            "corpora": len(judged.corpora),
            "judged_queries": len(judged.relevant),
            "topics": len(judged.group_topics()),
            "answers_per_query": judged.answers,
            "remarks": list(judged.remarks),
        },
        "run": {"seeds": list(seeds), **facts},
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) for check in checks],
        "cold": describe_cold(outcomes),
        "arms": {arm: asdict(found) for arm, found in arms.items()},
        "figures": {arm: _mean_scores(_gather(outcomes, arm)) for arm in arms},
        "baselines": {
            name: {arm: asdict(found) for arm, found in found_arms.items()}
            for name, found_arms in baselines.items()
        },
        "counts": {
            name: sum(outcome.counts.get(name, 0) for outcome in outcomes)
            for name in sorted({name for outcome in outcomes for name in outcome.counts})
        },
        "latency": dict(latency),
        "per_seed": [
            {arm: _mean_delta(outcome, arm) for arm in outcome.pairs} for outcome in outcomes
        ],
    }


def describe_cold(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Mean figures of each cold arm."""
    return {
        arm: _mean_scores([s for outcome in outcomes for s in outcome.cold.get(arm, {}).values()])
        for arm in COLD_ARMS
    }


def _gather(outcomes: Sequence[Outcome], arm: str) -> list[Scores]:
    return [score for outcome in outcomes for score in outcome.scores.get(arm, [])]


def _mean_scores(scores: Sequence[Scores]) -> dict[str, float]:
    if not scores:
        return {}
    return {
        "ndcg": fmean(each.ndcg for each in scores),
        "mrr": fmean(each.mrr for each in scores),
        "top1": fmean(each.top1 for each in scores),
        "recall": fmean(each.recall for each in scores),
    }


def _mean_delta(outcome: Outcome, arm: str) -> float:
    pairs = outcome.pairs[arm]
    return fmean(pair.after - pair.before for pair in pairs) if pairs else 0.0


def render_html(record: Mapping[str, Any]) -> str:
    """The page."""
    judged, run = record["set"], record["run"]
    missed = [check for check in record["checks"] if not check["passed"]]
    verdict = (
        f"All {len(record['checks'])} checks passed."
        if record["passed"]
        else f"{len(missed)} of {len(record['checks'])} checks missed: "
        + "; ".join(f"{check['name']} by {check['missed_by']}" for check in missed)
    )
    kind = "pass" if record["passed"] else "fail"
    parts = [
        f"<h1>playbook_lift on {escape(judged['name'])}</h1>",
        f"<p>{judged['documents']:,} documents in {judged['corpora']} "
        f"corpora, {judged['judged_queries']:,} judged queries of {judged['topics']:,} topics, "
        f"{judged['answers_per_query']:.1f} answers a query; seeds {run['seeds']}; "
        f"{run.get('elapsed_s', 0):.0f} s; {escape(run.get('at', ''))}</p>",
        f'<div class="verdict {kind}">{escape(verdict)}</div>',
        "<h2>The gate</h2>",
        draw_table(
            ["check", "wanted", "measured", "missed by", ""],
            [
                [
                    escape(c["name"]),
                    escape(c["wanted"]),
                    draw_mark(c["value"], passed=c["passed"]),
                    escape(c["missed_by"]),
                    escape(c["note"]),
                ]
                for c in record["checks"]
            ],
        ),
    ]
    if run.get("merged"):
        parts += _render_merged(run["merged"])
    if record["arms"]:
        parts += _render_arms(record)
    if judged["remarks"]:
        parts.append("<h2>Remarks on the set</h2>")
        parts.extend(f"<p>{escape(remark)}</p>" for remark in judged["remarks"])
    return draw_page(f"playbook_lift: {judged['name']}", parts)


def _curve(arms: Mapping[str, Any], prefix: str) -> list[tuple[float, float, float, float]]:
    found = [
        (float(arm.removeprefix(prefix)), each["delta"], each["low"], each["high"])
        for arm, each in arms.items()
        if arm.startswith(prefix) and each["queries"]
    ]
    return sorted(found)


def _render_merged(merged: Mapping[str, Mapping[str, float]]) -> list[str]:
    columns = list(next(iter(merged.values())))
    return [
        "<h2>Corpora of different content, merged</h2>",
        "<p>nDCG@10 of queries that each corpus answers. Cold is without playbook, oracle "
        "searches only the corpus that answers, learned is after so many judged runs.</p>",
        draw_table(
            ["arm", *columns],
            [
                [escape(arm), *(f"{found[column]:.3f}" for column in columns)]
                for arm, found in merged.items()
                if columns[-1] in found
            ],
        ),
        *(
            f"<p>Far-off queries whose top ten changed: {found['changed']:.0f} of "
            f"{found['asked']:.0f}.</p>"
            for arm, found in merged.items()
            if arm == "far-off"
        ),
    ]


def _render_arms(record: Mapping[str, Any]) -> list[str]:
    return [
        "<h2>As the playbook grows</h2>",
        "<p>Change of nDCG@10 against the same searches without playbook, with 95 % intervals "
        "over topics.</p>",
        draw_curves(
            {
                "held-out paraphrases": _curve(record["arms"], "paraphrase "),
                "unseen needs": _curve(record["arms"], "unseen "),
            },
            "recordings per topic",
            "change of nDCG@10",
        ),
        "<h2>Arms</h2>",
        draw_bars(
            {
                arm: (found["delta"], found["low"], found["high"])
                for arm, found in record["arms"].items()
                if found["queries"]
            }
        ),
        draw_table(
            ["arm", "queries", "before", "after", "change", "95 %", "headroom", "wins/losses", "p"],
            [_arm_row(arm, found) for arm, found in record["arms"].items() if found["queries"]],
        ),
        "<h2>Further figures, all at 10</h2>",
        draw_table(
            ["arm", "nDCG", "MRR", "top-1", "recall"],
            [
                [escape(arm), *(f"{found[k]:.3f}" for k in ("ndcg", "mrr", "top1", "recall"))]
                for arm, found in [
                    *((f"cold, {arm}", found) for arm, found in record["cold"].items()),
                    *record["figures"].items(),
                ]
                if found
            ],
        ),
        "<h2>Simpler memories, same recordings</h2>",
        draw_table(
            ["memory", "arm", "before", "after", "change", "headroom", "wins/losses"],
            [
                [
                    escape(name),
                    escape(arm),
                    f"{found['before']:.3f}",
                    f"{found['after']:.3f}",
                    f"{found['delta']:+.3f}",
                    f"{found['headroom']:.2f}",
                    f"{found['wins']}/{found['losses']}",
                ]
                for name, arms in record["baselines"].items()
                for arm, found in arms.items()
            ],
        ),
        "<h2>Latency and counts</h2>",
        draw_table(
            ["", ""],
            [
                [escape(name), f"{value:,.3f}"]
                for name, value in [*record["latency"].items(), *record["counts"].items()]
            ],
        ),
    ]


def draw_mark(value: object, *, passed: bool) -> str:
    """A value in the colour of its check."""
    return f'<span class="{"pass" if passed else "fail"}">{escape(value)}</span>'


def draw_page(title: str, parts: Sequence[str]) -> str:
    """A page of these parts that needs nothing else."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _arm_row(arm: str, found: Mapping[str, Any]) -> list[str]:
    return [
        escape(arm),
        str(found["queries"]),
        f"{found['before']:.3f}",
        f"{found['after']:.3f}",
        f"{found['delta']:+.4f}",
        f"{found['low']:+.4f} … {found['high']:+.4f}",
        f"{found['headroom']:.2f}",
        f"{found['wins']}/{found['losses']}",
        f"{found['p']:.4f}",
    ]


def draw_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are HTML already; the head is text."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def escape(value: object) -> str:
    """Text for a page."""
    return html.escape(str(value))
