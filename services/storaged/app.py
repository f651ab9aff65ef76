"""The HTTP face of storaged: wiring and thin routes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from services.storaged.core.conditions import parse_write_condition
from services.storaged.core.keys import MAX_KEY_BYTES, parse_raw_path
from services.storaged.core.listing import MAX_LIMIT, encode_cursor, parse_query
from services.storaged.core.reads import plan_read
from services.storaged.core.uploads import parse_upload
from services.storaged.store.backend import Backend
from services.storaged.store.figures import Figures
from services.storaged.store.local import LocalBackend
from services.storaged.store.objects import ObjectStore
from services.storaged.streaming import ObjectResponse
from shared.config import Config
from shared.pool import BlockingPool
from shared.runtime import Transports, create_base
from shared.s3keys import read_writer_keys
from shared.wire.storaged import OBJECTS_PATH, Deleted, ObjectInfo, ObjectList

MOUNT = f"{OBJECTS_PATH}/".encode()
# Calls that one request may have in the pool at once: one under way, one cleaning up.
CALLS_PER_REQUEST = 4


class KeyConvertor(PathConvertor):
    """Any path at all, line ends too, so that a bad key is told and not "no such route"."""

    regex = r"(?s:.*)"


register_url_convertor("key", KeyConvertor())


# Declared for the document only: `read_key` takes the key from the path as it came.
Key = Annotated[str, Path(description=f"1 to {MAX_KEY_BYTES} bytes of UTF-8.")]


def create_app(config: Config, *, transports: Transports | None = None) -> FastAPI:
    """Builds the daemon.

    Args:
        config: sections `storaged` and `storage` and the data directory are read.
        transports: unused; storaged calls no other daemon.
    """
    section = config.storaged
    backend = make_backend(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await store.start()
        yield
        await store.stop()

    async def check_ready() -> dict[str, str]:
        return await store.check()

    app = create_base("storaged", config, lifespan=lifespan, ready=check_ready)
    store = ObjectStore(
        backend,
        BlockingPool("storaged", section.threads, section.max_concurrency * CALLS_PER_REQUEST),
        caps=section.caps,
        default_cap=section.default_cap_bytes,
        figures=Figures(app.state.metrics.registry, backend.free_bytes),
    )
    add_routes(app, store)
    return app


def make_backend(config: Config) -> Backend:
    """The place for objects that [storage] names."""
    if config.storage.backend == "s3":
        # boto3 is 30 MB, and only a bucket needs it.
        from services.storaged.store.s3 import S3Backend

        return S3Backend(config.storage, read_writer_keys(config), config.storaged.max_concurrency)
    return LocalBackend(
        config.data_dir("storaged"),
        min_free_bytes=config.storaged.min_free_bytes,
        clock_ns=time.time_ns,
    )


def add_routes(app: FastAPI, store: ObjectStore) -> None:
    """The routes of objects; `store` does the work."""
    body: dict[str, Any] = {
        "content": {"application/octet-stream": {"schema": {"format": "binary"}}}
    }
    binary: dict[str, Any] = {
        "content": {"application/octet-stream": {}},
        "description": "The object's bytes",
    }

    @app.get(OBJECTS_PATH, tags=["storage"])
    async def list_objects(
        prefix: str = "",
        delimiter: str | None = None,
        limit: Annotated[int, Query(description=f"1 to {MAX_LIMIT}")] = MAX_LIMIT,
        cursor: str | None = None,
    ) -> ObjectList:
        """Objects in byte order of their keys, one page."""
        query = parse_query(prefix, delimiter, limit, cursor)
        page = await store.list(query)
        return ObjectList(
            objects=[stored.to_info() for stored in page.objects],
            prefixes=page.prefixes,
            next_cursor=encode_cursor(query, page.next_start) if page.next_start else None,
        )

    @app.put(
        OBJECTS_PATH + "/{key:key}",
        tags=["storage"],
        status_code=201,
        response_model=ObjectInfo,
        responses={200: {"model": ObjectInfo, "description": "Replaced"}},
        openapi_extra={"requestBody": body},
    )
    async def put_object(key: Key, request: Request) -> Response:
        """Stores the body; `If-None-Match: *` creates only, `If-Match` replaces only."""
        plan = parse_upload(read_headers(request))
        stored, created = await store.put(read_key(request), plan, request.stream())
        return Response(
            stored.to_info().model_dump_json(),
            status_code=201 if created else 200,
            headers={"etag": stored.etag},
            media_type="application/json",
        )

    @app.get(
        OBJECTS_PATH + "/{key:key}",
        tags=["storage"],
        response_class=Response,
        responses={200: binary, 206: binary, 304: {"description": "The caller has it already"}},
    )
    async def get_object(key: Key, request: Request) -> Response:
        """The object's bytes, or a range of them."""
        return await open_object(request)

    @app.head(OBJECTS_PATH + "/{key:key}", tags=["storage"], response_class=Response)
    async def head_object(key: Key, request: Request) -> Response:
        """What GET would say of the object, without its bytes."""
        return await open_object(request)

    async def open_object(request: Request) -> Response:
        headers = read_headers(request)
        opened = await store.open(
            read_key(request),
            lambda stored: plan_read(request.method, headers, stored, time.time()),
        )
        return ObjectResponse(store, opened)

    @app.delete(OBJECTS_PATH + "/{key:key}", tags=["storage"])
    async def delete_object(key: Key, request: Request) -> Deleted:
        """Removes the object; `deleted` is false when there was none."""
        condition = parse_write_condition("DELETE", read_headers(request))
        parsed = read_key(request)
        return Deleted(key=parsed, deleted=await store.delete(parsed, condition))


def read_key(request: Request) -> str:
    """The key from the path as it came, percent-decoded once, whatever the framework made of it."""
    return parse_raw_path(request.scope["raw_path"], MOUNT)


def read_headers(request: Request) -> dict[str, str]:
    """The headers by name in lower case; what was sent in several lines is joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
