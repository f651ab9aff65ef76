"""The Iceberg REST catalogue's routes, in process; engines are met in tests/conformance."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from shared.errors import Conflict, Forbidden, Internal, NotFound, Unavailable
from shared.protocols import iceberg_error
from tests.support.catalogd import catalogd_pair

pytestmark = pytest.mark.anyio

ROOT = "/iceberg/v1"
TABLES = f"{ROOT}/namespaces/lakehouse/tables"


def assert_error(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == (status, kind)
    assert error["message"]


async def test_a_reader_finds_its_way(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        get, head = pair.catalog.get, pair.catalog.head
        config = (await get(f"{ROOT}/config", params={"warehouse": "any"})).json()
        assert config["defaults"] == config["overrides"] == {}
        assert all(one.split()[0] in ("GET", "HEAD") for one in config["endpoints"])
        assert (await get(f"{ROOT}/namespaces")).json() == {"namespaces": [["lakehouse"]]}
        beneath = await get(f"{ROOT}/namespaces", params={"parent": "lakehouse"})
        assert beneath.json() == {"namespaces": []}
        namespace = await get(f"{ROOT}/namespaces/lakehouse")
        assert namespace.json() == {"namespace": ["lakehouse"], "properties": {}}
        assert (await head(f"{ROOT}/namespaces/lakehouse")).status_code == 204
        assert (await get(TABLES)).json() == {"identifiers": [], "next-page-token": None}
        for name in ("b", "a"):
            await pair.register(name, await pair.put(f"{name}.parquet", {"id": [1, 2]}))
        listed = (await get(TABLES)).json()["identifiers"]
        assert listed == [{"namespace": ["lakehouse"], "name": name} for name in ("a", "b")]
        assert (await head(f"{TABLES}/a")).status_code == 204


async def test_a_table_is_its_metadata_file(tmp_path: Path) -> None:
    async with catalogd_pair(tmp_path) as pair:
        made = await pair.register("t", await pair.put("t.parquet", {"id": [1, 2]}))
        loaded = (await pair.catalog.get(f"{TABLES}/t")).json()
        assert loaded["config"] == {}
        metadata = loaded["metadata"]
        assert str(metadata["current-snapshot-id"]) == made["snapshot_id"]
        written = Path(loaded["metadata-location"].removeprefix("file://"))
        assert metadata == json.loads(written.read_text("utf-8"))
        await pair.register("t", await pair.put("u.parquet", {"id": [3]}))
        later = (await pair.catalog.get(f"{TABLES}/t")).json()
        assert later["metadata-location"] != loaded["metadata-location"]
        assert len(later["metadata"]["snapshots"]) == 2


async def test_what_is_not_there_and_not_done_is_told_in_the_protocols_words(
    tmp_path: Path,
) -> None:
    async with catalogd_pair(tmp_path) as pair:
        get = pair.catalog.get
        assert_error(await get(f"{TABLES}/nobody"), 404, "NoSuchTableException")
        for path in ("/namespaces/x", "/namespaces/x/tables", "/namespaces/x/tables/t"):
            assert_error(await get(ROOT + path), 404, "NoSuchNamespaceException")
        other = await get(f"{ROOT}/namespaces", params={"parent": "x"})
        assert_error(other, 404, "NoSuchNamespaceException")
        assert (await pair.catalog.head(f"{TABLES}/nobody")).status_code == 404
        assert (await pair.catalog.head(f"{ROOT}/namespaces/x")).status_code == 404
        assert_error(await get(f"{ROOT}/nothing"), 404, "NotFoundException")
        for method, path in (("POST", TABLES), ("DELETE", f"{TABLES}/t"), ("POST", f"{TABLES}/t")):
            refused = await pair.catalog.request(method, path, json={})
            assert_error(refused, 405, "UnsupportedOperationException")
        # The catalogue's own routes keep the fleet's envelope.
        assert "service" in (await get("/catalog/datasets/nobody")).json()["error"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFound("m", details={"dataset": "t"}), "NoSuchTableException"),
        (NotFound("m", details={"namespace": "n"}), "NoSuchNamespaceException"),
        (Forbidden("m"), "ForbiddenException"),
        (Conflict("m"), "BadRequestException"),
        (Unavailable("m"), "ServiceUnavailableException"),
        (Internal("m"), "InternalServerError"),
    ],
)
def test_errors_have_the_protocols_names(
    error: NotFound | Forbidden | Conflict | Unavailable | Internal, kind: str
) -> None:
    shaped = iceberg_error(error)["error"]
    assert shaped == {"message": "m", "type": kind, "code": error.status}
