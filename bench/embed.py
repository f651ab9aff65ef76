"""Embedding: texts a second over HTTP beside bare onnxruntime, cache hits, tokens, memory.

Texts are staffing records of mixed length, all different. The peer is onnxruntime in this
process with nothing around it: texts already tokenised, sorted by length, cut into batches
and computed by as many threads as embedd has, so that what is measured is everything that
embedd adds (HTTP, JSON, tokenising, queueing, keeping). Both take turns in small rounds, so
that whatever else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from bench.raw_client import RawClient
from scripts.private_fleet import PrivateFleet
from scripts.staffing_data import generate_workers
from services.embedd.core.batching import WorkQueue
from services.embedd.core.wordpiece import Encoding
from services.embedd.store.local import TIDY_AFTER_S
from services.embedd.store.minilm import MAX_TOKENS, VOCABULARY, MiniLM
from shared.sections.embed import LocalEmbedder

SETTINGS = LocalEmbedder()


def make_texts(count: int) -> list[str]:
    """Texts of 5 to 200 tokens as a staffing system has them: titles, profiles, whole records."""
    texts: list[str] = []
    for number, row in enumerate(generate_workers(count, seed=7)):
        (worker, first, last, _, _, role, skills, certs, years, city, state, *_, summary) = row
        match number % 4:
            case 0:
                text = f"{role} {worker}, {city}"
            case 1:
                text = f"{first} {last} ({worker}): {role} in {city}, {state}. {skills}; {certs}"
            case 2:
                text = f"{worker}: {summary}"
            case _:
                text = (
                    f"{worker} {role}, {years} years. {summary} Skills: {skills}. {' '.join(row)}"
                )
        texts.append(text)
    return texts


class Daemon:
    """embedd on its own port, asked by one keep-alive connection."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=600)

    def post(self, path: str, body: bytes, accept: str = "application/json") -> bytes:
        """One answer's body; raises unless it is 200."""
        headers = {"content-type": "application/json", "accept": accept}
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:300]!r}")
        return content

    def embed(self, texts: Sequence[str]) -> None:
        """Embeds the texts in one request."""
        self.post("/embed", json.dumps({"texts": texts}).encode())


class Bare:
    """onnxruntime and nothing else."""

    def __init__(self, threads: int, batch_tokens: int) -> None:
        self.model = MiniLM(None, SETTINGS.sha256)
        self.model.load()
        self.threads = ThreadPoolExecutor(threads)
        self.batch_tokens = batch_tokens

    def prepare(self, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """Inputs of sorted batches, made beforehand."""
        queue: WorkQueue[Encoding] = WorkQueue()
        encodings = sorted(self.model.encode(texts), key=lambda e: len(e.ids))
        queue.add([(encoding, len(encoding.ids)) for encoding in encodings])
        batches: list[dict[str, Any]] = []
        while batch := queue.take(self.batch_tokens, self.batch_tokens):
            shape = (len(batch), max(len(encoding.ids) for encoding in batch))
            ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            for row, encoding in enumerate(batch):
                ids[row, : len(encoding.ids)] = encoding.ids
                mask[row, : len(encoding.ids)] = 1
            batches.append(
                {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            )
        return [batches]

    def run(self, prepared: list[list[dict[str, Any]]]) -> None:
        """Computes them all."""
        session = self.model._session
        for batches in prepared:
            list(self.threads.map(lambda feeds: session.run(None, feeds), batches))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare_throughput(
    daemon: Daemon, pid: int, texts: list[str], rounds: int
) -> list[dict[str, Any]]:
    """Texts a second, both in turn; and CPU time, which tells more on a busy machine."""
    bare = Bare(SETTINGS.threads, SETTINGS.batch_tokens)
    per_round = len(texts) // (rounds + 1)
    daemon.embed(texts[:per_round])
    bare.run(bare.prepare(texts[:per_round]))
    ours = theirs = ours_cpu = theirs_cpu = 0.0
    for number in range(1, rounds + 1):
        some = texts[number * per_round : (number + 1) * per_round]
        prepared = bare.prepare(some)
        theirs_cpu -= time.process_time()
        theirs += timed(lambda prepared=prepared: bare.run(prepared))
        theirs_cpu += time.process_time()
        ours_cpu -= read_cpu_s(pid)
        ours += timed(lambda some=some: daemon.embed(some))
        ours_cpu += read_cpu_s(pid)
    count = per_round * rounds
    name = f"bare onnxruntime, {SETTINGS.threads} threads"
    return [
        row("texts/s through HTTP", count / ours, count / theirs, name),
        row("texts per CPU second", count / ours_cpu, count / theirs_cpu, name),
    ]


def read_cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_hits(url: str, text: str, rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a cached text, beside the same server doing nothing (GET /health)."""
    client = RawClient(url)
    body = json.dumps({"texts": [text]}).encode()
    openai = json.dumps({"input": text, "model": "local", "encoding_format": "base64"}).encode()
    requests = {
        "/embed": client.prepare("POST", "/embed", body),
        "/v1/embeddings": client.prepare("POST", "/v1/embeddings", openai),
        "/health": client.prepare("GET", "/health"),
    }
    samples: dict[str, list[float]] = {path: [] for path in requests}
    client.ask(requests["/embed"])
    for _ in range(rounds):
        for path, request in requests.items():
            samples[path].append(timed(lambda request=request: client.ask(request)))
    health = median(samples.pop("/health")) * 1e6
    return [
        row(f"cache hit at {path}, us", median(times) * 1e6, health, "GET /health")
        for path, times in samples.items()
    ]


def compare_tokenizers(texts: list[str]) -> dict[str, Any] | None:
    """Texts a second, ours and the package's; None where that is not installed."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    except ImportError:
        print("tokenizers is not installed: that comparison is left out", file=sys.stderr)
        return None
    tokens = VOCABULARY.read_text("utf-8").removesuffix("\n").split("\n")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    peer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    peer.normalizer = normalizers.BertNormalizer()
    peer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    peer.enable_truncation(MAX_TOKENS - 2)
    own = MiniLM(None, SETTINGS.sha256)
    own.encode(texts[:1])
    wrong = sum(
        mine.ids[1:-1] != theirs.ids
        for mine, theirs in zip(own.encode(texts), map(peer.encode, texts), strict=True)
    )
    ours = min(timed(lambda: own.encode(texts)) for _ in range(3))
    theirs = min(timed(lambda: [peer.encode(text) for text in texts]) for _ in range(3))
    print(f"tokenizer: {wrong} of {len(texts)} texts differ from tokenizers")
    return row(
        "texts tokenised/s", len(texts) / ours, len(texts) / theirs, "tokenizers, one thread"
    )


def read_memory_mib(pid: int) -> float:
    """Proportional set size."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def bare_memory_mib(text: str) -> float:
    """Memory of a Python process that did nothing but embed one text."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from services.embedd.store.minilm import MiniLM\n"
        "model = MiniLM(None, sys.argv[2]); model.embed(model.encode([sys.argv[3]]))\n"
        "lines = open('/proc/self/smaps_rollup').read().splitlines()\n"
        "print(next(int(l.split()[1]) / 1024 for l in lines if l.startswith('Pss:')))"
    )
    command = [sys.executable, "-c", code, str(ROOT), SETTINGS.sha256, text]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def row(figure: str, ours: float, peer: float, name: str) -> dict[str, Any]:
    """One line of the report, printed as well."""
    print(f"{figure:<34} {ours:10.1f}   {name}: {peer:10.1f}   {ours / peer:.3f} x")
    return {
        "figure": figure,
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "peer_name": name,
        "ratio": round(ours / peer, 3),
    }


def main() -> int:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    texts = make_texts(arguments.texts)
    rows: list[dict[str, Any]] = []
    with PrivateFleet(("embedd",), {"EMBEDD__CACHE_DISK_BYTES": "0"}) as fleet:
        daemon = Daemon(fleet.urls["embedd"])
        pid = fleet.pid("embedd")
        print(f"memory before the first text: {read_memory_mib(pid):.1f} MiB")
        daemon.embed(texts[:1])
        loaded = read_memory_mib(pid)
        rows.append(
            row("MiB with the model loaded", loaded, bare_memory_mib(texts[0]), "a bare process")
        )
        rows += measure_hits(fleet.urls["embedd"], texts[0], 2000)
        rows += compare_throughput(daemon, pid, texts[1:], arguments.rounds)
        time.sleep(TIDY_AFTER_S + 1)
        rows.append(
            row("MiB after the work", read_memory_mib(pid), loaded, "with the model loaded")
        )
    found = compare_tokenizers(texts)
    rows += [found] if found else []
    if arguments.json:
        host = {"cpus": os.cpu_count()}
        arguments.json.write_text(json.dumps({"bench": "embed", "host": host, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
