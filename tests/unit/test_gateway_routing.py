"""Which daemon a path goes to: on raw bytes, by whole segments, protocols before prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.core.routing import (
    PREFIX_ROUTES,
    Shape,
    find_route,
    find_shape,
    public_path,
    public_prefixes,
)
from shared.daemons import PORTS

OWNERS = {
    "storage": "storaged",
    "catalog": "catalogd",
    "iceberg": "catalogd",
    "ingest": "ingestd",
    "sql": "queryd",
    "vectors": "vectord",
    "embed": "embedd",
    "pathway": "pathwayd",
    "mem0": "pathwayd",
    "matrix": "matrixd",
    "observer": "observerd",
    "chat": "chatd",
    "mcp": "mcpd",
}


@pytest.mark.parametrize(("prefix", "daemon"), OWNERS.items())
@pytest.mark.parametrize("rest", ["", "/", "/a", "/a/b?", "//x", "/../sql"])
def test_each_prefix_goes_to_its_owner_stripped(prefix: str, daemon: str, rest: str) -> None:
    route = find_route(f"/v1/{prefix}{rest}".encode())
    assert route is not None
    assert (route.daemon, route.strip) == (daemon, True)


def test_the_table_names_every_prefix_and_only_known_daemons() -> None:
    assert {route.path.decode() for route in PREFIX_ROUTES} == {f"/v1/{p}" for p in OWNERS}
    assert {route.daemon for route in PREFIX_ROUTES} <= set(PORTS)


@pytest.mark.parametrize(
    ("path", "daemon"),
    [
        ("/v1/chat/completions", "chatd"),
        ("/v1/chat/completions/abc/messages", "chatd"),
        ("/v1/responses", "chatd"),
        ("/v1/responses/r_1/input_items", "chatd"),
        ("/v1/models", "chatd"),
        ("/v1/models/org%2Fname", "chatd"),
        ("/v1/messages", "chatd"),
        ("/v1/messages/count_tokens", "chatd"),
        ("/v1/embeddings", "embedd"),
        ("/v1/embeddings/", "embedd"),
    ],
)
def test_protocol_paths_win_and_stay_whole(path: str, daemon: str) -> None:
    route = find_route(path.encode())
    assert route is not None
    assert (route.daemon, route.strip) == (daemon, False)


@pytest.mark.parametrize(
    ("path", "strip"),
    [
        (b"/v1/chat/completionsx", True),
        (b"/v1/chat/completion", True),
        (b"/v1/chat/completions%2F", True),
        (b"/v1/chat//completions", True),
        (b"/v1/chat/Completions", True),
    ],
)
def test_only_whole_segments_make_a_protocol_path(path: bytes, strip: bool) -> None:
    route = find_route(path)
    assert route is not None
    assert (route.daemon, route.strip) == ("chatd", strip)


@pytest.mark.parametrize(
    "path",
    [
        b"/v1",
        b"/v1/",
        b"/v1//storage/x",
        b"//v1/storage/x",
        b"/v1/storages",
        b"/v1/storag",
        b"/v1/Storage",
        b"/V1/storage",
        b"/v1/stor%61ge/x",
        b"/v1/%73torage",
        b"/v1%2Fstorage",
        b"/v1/storage%2Fobjects",
        b"/v1/./storage",
        b"/v1/../v1/storage",
        b"/v1/x/../storage",
        b"/v1/storage;a=b",
        b"/v1/modelsx",
        b"/v10/storage",
        b"/v2/storage",
        b"/storage",
        b"/",
        b"",
    ],
)
def test_what_only_looks_like_a_prefix_is_none(path: bytes) -> None:
    assert find_route(path) is None


@given(st.sampled_from(sorted(OWNERS)), st.binary(max_size=40))
def test_nothing_behind_the_prefix_changes_the_owner(prefix: str, rest: bytes) -> None:
    route = find_route(b"/v1/" + prefix.encode() + b"/" + rest)
    assert route is not None
    assert route.daemon == OWNERS[prefix]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (b"/v1/chat/completions", Shape.OPENAI),
        (b"/v1/models/x", Shape.OPENAI),
        (b"/v1/embeddings", Shape.OPENAI),
        (b"/v1/messages", Shape.ANTHROPIC),
        (b"/v1/iceberg/v1/config", Shape.ICEBERG),
        (b"/v1/chat", Shape.HOUSE),
        (b"/v1/sql", Shape.HOUSE),
        (b"/v1/absent", Shape.HOUSE),
    ],
)
def test_error_shapes_follow_the_path(path: bytes, shape: Shape) -> None:
    assert find_shape(path) is shape


def test_labels_do_not_grow_with_paths() -> None:
    labels = {
        route.label
        for number in range(20)
        if (route := find_route(b"/v1/storage/objects/%d" % number)) is not None
    }
    assert labels == {"/v1/storage/*"}


@pytest.mark.parametrize(
    ("daemon", "path", "shown"),
    [
        ("queryd", "/sql", "/v1/sql"),
        ("queryd", "/sql/tables/{name}", "/v1/sql/tables/{name}"),
        ("catalogd", "/iceberg/v1/config", "/v1/iceberg/v1/config"),
        ("embedd", "/v1/embeddings", "/v1/embeddings"),
        ("embedd", "/embed", "/v1/embed"),
        ("chatd", "/v1/chat/completions", "/v1/chat/completions"),
        ("pathwayd", "/mem0/memories", "/v1/mem0/memories"),
        ("queryd", "/health", None),
        ("queryd", "/storage/objects", None),
        ("queryd", "/v1/sql", None),
    ],
)
def test_public_paths_are_the_reverse(daemon: str, path: str, shown: str | None) -> None:
    assert public_path(daemon, path) == shown
    if shown is not None:
        route = find_route(shown.encode())
        assert route is not None
        assert route.daemon == daemon
        assert (shown[3:] if route.strip else shown) == path


def test_prefixes_for_people_are_all_routed() -> None:
    assert all(find_route(prefix.encode()) for prefix in public_prefixes())
    assert len(public_prefixes()) == 18
