"""Snapshots on the local disk: written whole or not at all, and read only with right hashes.

A snapshot is a folder: `vectors.f32` (rows of float32), `items.jsonl` (a line per row: id,
text, metadata; `null` for a dead row), `graph.hnsw` where there is a graph, and
`manifest.json`, written last.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import orjson

from services.vectord.core.snapshots import (
    KEPT,
    MANIFEST,
    Manifest,
    is_label,
    label_of,
    parse_manifest,
)
from services.vectord.store.files import (
    Damaged,
    explain,
    hash_file,
    sync_folder,
    to_blocks,
    write_blocks,
)
from services.vectord.store.graph import Graph, load_graph
from services.vectord.store.index import View
from services.vectord.store.table import Table
from shared.wire.vectord import IndexSpec

VECTORS, ITEMS, GRAPH = "vectors.f32", "items.jsonl", "graph.hnsw"
_LINES = 4096


def write_snapshot(folder: Path, uid: str, spec: IndexSpec, view: View, now: str) -> Manifest:
    """Writes the view under `folder`, durably, and gives its manifest.

    Raises:
        OSError: there is no room; nothing is left behind.
    """
    label = label_of(view.seq, view.graph_rows)
    partial, final = folder / f"{label}.partial", folder / label
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        vectors = memoryview(view.matrix[: view.rows]).cast("B") if view.rows else b""
        files = {
            VECTORS: write_blocks(partial / VECTORS, to_blocks(vectors)),
            ITEMS: write_blocks(partial / ITEMS, _lines(view)),
        }
        if view.graph is not None:
            view.graph.save(partial / GRAPH)
            files[GRAPH] = hash_file(partial / GRAPH, sync=True)
        manifest = Manifest(
            uid=uid,
            spec=spec,
            created_at=now,
            seq=view.seq,
            rows=view.rows,
            live=view.live,
            graph_rows=view.graph_rows,
            files=files,
        )
        write_blocks(partial / MANIFEST, [manifest.model_dump_json().encode()])
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def list_snapshots(folder: Path) -> list[str]:
    """The labels of the snapshots under `folder`, newest first."""
    with contextlib.suppress(FileNotFoundError):
        return sorted((p.name for p in folder.iterdir() if is_label(p.name)), reverse=True)
    return []


def prune_snapshots(folder: Path, keep: Iterable[str] = ()) -> None:
    """Removes all but the newest two, those in `keep`, and what a crash left half written."""
    kept = {*list_snapshots(folder)[:KEPT], *keep}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the snapshot in `folder`.

    Raises:
        Damaged: it is missing or not one.
    """
    try:
        return parse_manifest((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"{MANIFEST} of {folder.name}: {explain(error)}") from None


def read_snapshot(folder: Path) -> tuple[Manifest, Table, Graph | None, list[str]]:
    """A snapshot as it was: manifest, rows, graph, and what was damaged but does not matter.

    A damaged graph is left out: it is rebuilt from the rows.

    Raises:
        Damaged: rows, texts or the manifest are not what was written.
    """
    manifest = read_manifest(folder)
    for name in (VECTORS, ITEMS):
        _check(folder, manifest, name)
    table = Table(manifest.spec.dim)
    table.reserve(manifest.rows)
    lines: list[bytes] = []
    with (folder / VECTORS).open("rb") as vectors, (folder / ITEMS).open("rb") as items:
        for line in items:
            lines.append(line)
            if len(lines) == _LINES:
                _take(table, lines, vectors.read(len(lines) * table.dim * 4))
                lines = []
        _take(table, lines, vectors.read(len(lines) * table.dim * 4))
    if (table.rows, table.live) != (manifest.rows, manifest.live):
        raise Damaged(f"{ITEMS} of {folder.name}: not all rows are there")
    graph, problems = None, list[str]()
    if GRAPH in manifest.files:
        try:
            _check(folder, manifest, GRAPH)
            graph = load_graph(manifest.spec, folder / GRAPH, manifest.graph_rows)
        except (Damaged, ValueError) as error:
            problems.append(f"{error}; the graph is rebuilt from the rows")
    return manifest, table, graph, problems


def _take(table: Table, lines: list[bytes], data: bytes) -> None:
    if not lines:
        return
    vectors = np.frombuffer(data, np.float32).reshape(len(lines), table.dim)
    read = [orjson.loads(line) for line in lines]
    start = 0
    # Runs of rows that are all alive or all dead.
    while start < len(read):
        dead = read[start] is None
        stop = start + 1
        while stop < len(read) and (read[stop] is None) == dead:
            stop += 1
        part = read[start:stop]
        if dead:
            table.append_dead(vectors[start:stop])
        else:
            table.append(
                [name for name, _, _ in part],
                vectors[start:stop],
                [text for _, text, _ in part],
                [orjson.dumps(metadata) for _, _, metadata in part],
                0,
            )
        start = stop


def _lines(view: View) -> Iterator[bytes]:
    table, alive = view.table, view.alive
    pending: list[bytes] = []
    for row in range(view.rows):
        entry = (
            [table.ids[row], table.texts[row], orjson.Fragment(table.metadata[row])]
            if alive[row]
            else None
        )
        pending.append(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        if len(pending) == _LINES:
            yield b"".join(pending)
            pending = []
    yield b"".join(pending)


def _check(folder: Path, manifest: Manifest, name: str) -> None:
    try:
        found = hash_file(folder / name)
    except OSError as error:
        raise Damaged(f"{name} of {folder.name}: {explain(error)}") from None
    if found != manifest.files.get(name):
        raise Damaged(f"{name} of {folder.name}: its content is not what was written")
