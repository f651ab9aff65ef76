"""vectord's snapshots on their way to storaged: files are closed whatever becomes of a request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from services.vectord.core.snapshots import FileEntry, Manifest
from services.vectord.store.remote import Remote
from shared.clients.storaged import StoragedClient
from shared.errors import Unavailable
from shared.wire.vectord import IndexSpec

pytestmark = pytest.mark.anyio


class Breaking:
    """A storaged that takes a first piece and is gone."""

    async def put_object(self, key: str, body: AsyncIterator[bytes], *, size: int) -> None:
        self.body = body
        assert await anext(body)
        raise Unavailable("away")


def open_files(folder: Path) -> list[str]:
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return [
        str(link.readlink())
        for link in links
        if link.is_symlink() and folder in link.resolve().parents
    ]


async def test_a_store_that_fails_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b"x" * 3_000_000)
    entry = FileEntry(size=3_000_000, sha256="0" * 64)
    manifest = Manifest(
        uid="u",
        spec=IndexSpec(name="n", dim=2),
        created_at="t",
        seq=1,
        rows=1,
        live=1,
        graph_rows=1,
        files={"items.jsonl": entry},
    )
    client = Breaking()
    with pytest.raises(Unavailable):
        await Remote(cast("StoragedClient", client)).store(tmp_path, manifest)
    # The body is still held here: it was closed, not collected.
    assert client.body is not None
    assert open_files(tmp_path) == []
