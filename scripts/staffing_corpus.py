"""Making a corpus through the gateway, with its progress on the terminal: for the drivers."""

from __future__ import annotations

import sys
import time
from typing import Any

import httpx


def build_corpus(gateway: str, headers: dict[str, str], spec: dict[str, Any]) -> int:
    """Makes the corpus, or brings it up to date, and waits; gives the exit status."""
    with httpx.Client(base_url=gateway, headers=headers, timeout=330, trust_env=False) as client:
        begun = time.monotonic()
        answer = client.post("/v1/matrix/corpora", params={"replace": True, "wait": 0}, json=spec)
        if answer.status_code == 200 and answer.json()["job"]["status"] == "done":
            # It was there: its table may have changed since.
            answer = client.post(f"/v1/matrix/corpora/{spec['name']}/refresh", params={"wait": 0})
        while True:
            info = answer.json()
            if answer.status_code >= 400:
                print(f"The corpus was refused: {info['error']['message']}")
                return 1
            job = info["job"]
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{show_job(job):<76}")
            if job["status"] in ("done", "failed"):
                break
            time.sleep(0.2)
            answer = client.get(f"/v1/matrix/corpora/{spec['name']}")
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * 76 + "\r")
    if job["status"] == "failed":
        print(f"The corpus {spec['name']} could not be built: {job['error']}")
        return 1
    left = info["report"]
    print(
        f"{spec['name']}: {info['documents']} documents searchable, {job['done']} embedded, "
        f"{job['unchanged']} unchanged, {job['deleted']} gone, "
        f"{left['rows'] - left['documents']} rows left out, in {time.monotonic() - begun:.1f} s"
    )
    return 0


def show_job(job: dict[str, Any]) -> str:
    """How far a job is, on one line."""
    if job["status"] == "waiting":
        return f"waiting: {job['error']}"[:76]
    done, total = job["done"], job["total"]
    bar = "█" * int(24 * job["progress"])
    return f"{job['phase']:>9}  {bar:<24} {done} of {total} embedded, {job['rows_read']} rows read"
