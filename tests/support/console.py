"""Daemons as the console's tests see them: canned answers full of markup that must not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

EVIL = '<img src=x onerror=alert("1")><script>alert(2)</script>'
COLUMN = "<b onclick=alert(3)>a</b>"
AT = "2026-11-22T10:00:00Z"
SCHEMA = [{"name": COLUMN, "type": "VARCHAR"}, {"name": "b", "type": "BIGINT"}]
RECORD = {
    "rows_in": 3,
    "rows_out": 2,
    "rejects": {"count": 1, "object": "datasets/u/rejects/x.parquet"},
}
DATASET = {
    "name": "evil",
    "uuid": "u",
    "snapshot_id": "2",
    "fingerprint": "f",
    "rows": 2,
    "bytes": 10,
    "files": 1,
    "updated_at": AT,
    "schema": SCHEMA,
}
SNAPSHOTS = [
    {
        "snapshot_id": str(number),
        "parent_id": None,
        "time": AT,
        "operation": EVIL,
        "rows": number,
        "summary": {"lakehouse.ingest-id": f"i{number}"},
    }
    for number in (1, 2)
]
RESULT = {
    "columns": SCHEMA,
    "rows": [[EVIL, 1], ["plain", 2], [None, None]],
    "row_count": 3,
    "truncated": True,
    "elapsed_ms": 1.5,
}
CORPUS = {
    "name": "evil",
    "status": "ready",
    "source": {"sql": EVIL},
    "id": "id",
    "text": EVIL,
    "metadata": [],
    "refresh": "manual",
    "model": "m",
    "dim": 3,
    "index": "i",
    "documents": 2,
    "items": 2,
    "report": {},
    "job": {"status": "failed", "error": EVIL},
    "calibrated": True,
    "tuning": {},
    "created_at": AT,
}
HIT = {
    "corpus": "evil",
    "id": EVIL,
    "score": 0.9,
    "rank": 1,
    "text": EVIL,
    "metadata": {COLUMN: EVIL},
    "explain": {
        "p0": 0.5,
        "cold_rank": 3,
        "cosine": 0.4,
        "bm25": 1.25,
        "playbook": [{"episode_id": EVIL, "delta": 0.5}],
    },
}
EPISODE = {
    "episode_id": "e1",
    "seq": 1,
    "query": EVIL,
    "ratings": [{"corpus": "evil", "id": EVIL, "rating": 1}],
    "source": EVIL,
    "corpora": ["evil"],
    "models": [EVIL],
    "recorded_at": AT,
    "note": {EVIL: EVIL},
}
TRACE = {
    "id": "t1",
    "version": 1,
    "status": "live",
    "content": {EVIL: EVIL},
    "tags": [EVIL],
    "hash": "h",
    "created_at": AT,
    "updated_at": AT,
    "supersedes": EVIL,
}
SEMANTIC = {"status": "unavailable", "reason": EVIL}
RUN = {
    "run_id": "r1",
    "name": EVIL,
    "status": "failed",
    "outcome": EVIL,
    "error": {"type": EVIL, "message": EVIL},
    "nodes": {
        "a": {"state": "completed", "mode": EVIL, "output": EVIL},
        EVIL: {
            "state": "failed",
            "mode": "sql",
            "depends_on": ["a"],
            "error": {"type": EVIL, "message": EVIL},
        },
    },
    "created_at": AT,
}
FINDING = {
    "feature": COLUMN,
    "kind": "numeric",
    "status": "stable",
    "reason": EVIL,
    "sessions": [40, 40],
    "rows": [40, 40],
    "effect_name": EVIL,
    "effect": 0.1,
    "effect_low": 0.0,
    "effect_high": 0.2,
}
JOB = {
    "job_id": "j1",
    "status": "done",
    "dataset": "evil",
    "mode": "append",
    "contract": EVIL,
    "source": {"bytes": 5, "object": EVIL},
    "created_at": AT,
    "progress": {"stage": EVIL, "note": EVIL},
    "result": {
        "dataset": "evil",
        "snapshot_id": "1",
        "ingest_id": "i1",
        **RECORD,
        "inserted": 1,
        "updated": 1,
        "warnings": [EVIL],
        "schema": SCHEMA,
    },
}
FIGURES = 'lakehouse_requests_total{route="/a",method="GET",status="200"} 5.0\n'
CHAT = b'data: {"type": "text", "text": "hi"}\n\n'
ANSWERS: dict[str, Any] = {
    "/health": {"service": "x", "version": EVIL, "uptime_s": 5.0},
    "/ready": {"status": "ready", "service": "x", "checks": {}},
    "/catalog/datasets": {"datasets": [DATASET]},
    "/catalog/datasets/evil": DATASET,
    "/catalog/datasets/evil/snapshots": {"dataset": "evil", "snapshots": SNAPSHOTS},
    "/catalog/datasets/evil/ingests/i1": {
        "dataset": "evil",
        "ingest_id": "i1",
        "snapshot_id": "1",
        "record": RECORD,
        "schema": SCHEMA,
    },
    "POST /catalog/datasets": {
        "dataset": "evil_rejects",
        "uuid": "u",
        "snapshot_id": "1",
        "fingerprint": "f",
        "status": "created",
        "schema": SCHEMA,
    },
    "/ingest": JOB,
    "/ingest/jobs/j1": JOB,
    "/ingest/jobs/j2": {**JOB, "job_id": "j2", "status": "running", "result": None},
    "/ingest/jobs/j2/cancel": {**JOB, "job_id": "j2", "status": "cancelled", "result": None},
    "DELETE /ingest/jobs/j2": {**JOB, "job_id": "j2", "status": "cancelled", "result": None},
    "/sql": RESULT,
    "/sql/tables": {"tables": [EVIL]},
    "/matrix/corpora": {"corpora": [CORPUS]},
    "POST /matrix/corpora": CORPUS,
    "/matrix/corpora/evil/refresh": CORPUS,
    "/matrix/search": {
        "hits": [HIT],
        "corpora": {"evil": {"status": "ok"}, EVIL: {"status": "building", "reason": EVIL}},
        "playbook": {
            "activated": True,
            "notes": [{"episode_id": EVIL, "query": EVIL, "similarity": 1, "probability": 1}],
        },
    },
    "/matrix/playbook": {
        "episodes": [EPISODE],
        "total": 1,
        "retired": 0,
        "sources": {EVIL: {"episodes": 1, "ratings": 1, "accuracy": 0.9}},
        "next_cursor": EVIL,
    },
    "POST /matrix/playbook": {"episode_id": "e1", "seq": 1, "recorded_at": AT},
    "/matrix/playbook/e1": EPISODE,
    "/matrix/playbook/retire": {"retired": 1, "already": 0, "episode_ids": ["e1"]},
    "/pathway/traces": {"traces": [TRACE], "cursor": EVIL},
    "/pathway/traces/t1": TRACE,
    "/pathway/traces/t1/retire": TRACE,
    "/pathway/traces/t1/history": {
        "id": "t1",
        "chain": ["t1"],
        "entries": [
            {"id": EVIL, "version": 1, "event": "add", "at": AT, "content": EVIL, "reason": EVIL}
        ],
        "problems": [EVIL],
    },
    "/pathway/search": {
        "hits": [{**TRACE, "score": 0.5, "rank": 1}],
        "mode": "hybrid",
        "semantic": SEMANTIC,
        "matched": 1,
    },
    "/pathway/stats": {"status": "ready", "vectors": SEMANTIC, "problems": [EVIL]},
    "/observer/workflows/runs": {
        "runs": [{"run_id": "r1", "name": EVIL, "status": "failed", "created_at": AT}],
        "next_cursor": EVIL,
    },
    "POST /observer/workflows/runs": {"run_id": "r1", "status": "queued"},
    "/observer/workflows/runs/r1": RUN,
    "/observer/workflows/runs/r1/cancel": RUN,
    "/observer/workflows/runs/r1/resume": {"run_id": "r1", "status": "queued"},
    "/observer/workflows/modes": {
        "modes": [
            {
                "name": EVIL,
                "version": 1,
                "description": EVIL,
                "side_effects": True,
                "inputs": {"properties": {EVIL: {}}},
            }
        ]
    },
    "/observer/drift/distributions": {
        "status": "stable",
        "findings": [FINDING],
        "alpha": 0.05,
        "correction": EVIL,
        "draws": 9,
        "straddling_sessions": 2,
    },
    "/chat/providers": {
        "providers": {"fake": True},
        "tiers": {"local_fast": {"model": EVIL, "provider": EVIL, "status": "ok"}},
    },
}


@dataclass
class Answers:
    """How the daemons behave, and what they were asked."""

    down: bool = False
    away: set[str] = field(default_factory=set)
    calls: list[httpx.Request] = field(default_factory=list)


def answer_with(given: Answers, service: str) -> Callable[[httpx.Request], httpx.Response]:
    """The canned answers of one daemon."""

    def answer(request: httpx.Request) -> httpx.Response:
        given.calls.append(request)
        if given.down or service in given.away:
            raise httpx.ConnectError("refused")
        path = request.url.path
        if path == "/metrics":
            return httpx.Response(200, text=FIGURES)
        if path.startswith("/storage/objects/"):
            headers = {
                "etag": '"e"',
                "last-modified": "Sun, 22 Nov 2026 10:00:00 GMT",
                "x-lakehouse-uri": "file:///x",
                "content-length": "4",
            }
            return httpx.Response(200, stream=httpx.ByteStream(b"PAR1"), headers=headers)
        if path.endswith("/events") and "/jobs/" in path:
            return httpx.Response(200, stream=httpx.ByteStream(b"event: end\nid: 1\ndata: {}\n\n"))
        if path == "/chat":
            return httpx.Response(200, stream=httpx.ByteStream(CHAT))
        if path == "/sql" and request.headers["accept"] == "text/csv":
            return httpx.Response(200, stream=httpx.ByteStream(b"a,b\n1,2\n"))
        found = ANSWERS.get(f"{request.method} {path}", ANSWERS.get(path))
        if found is None:
            error = {"code": "not_found", "message": EVIL, "service": service, "request_id": "r"}
            return httpx.Response(404, json={"error": error})
        return httpx.Response(200, json=found)

    return answer
