"""The Iceberg REST catalogue for readers: thin routes beneath /iceberg/v1."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query, Response

from services.catalogd.store.catalogue import Catalogue
from services.catalogd.store.tables import NAMESPACE
from shared.errors import NotFound
from shared.wire.iceberg import (
    ICEBERG_PATH,
    CatalogConfig,
    Namespace,
    NamespaceList,
    TableIdentifier,
    TableIdentifierList,
)

ROOT = f"{ICEBERG_PATH}/v1"
ENDPOINTS = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
]

InNamespace = Annotated[str, Path(description=f"There is one: {NAMESPACE}")]


def add_iceberg_routes(app: FastAPI, catalogue: Catalogue) -> None:
    """What DuckDB, pyiceberg, Spark, Sail, Trino and others read tables by."""

    @app.get(f"{ROOT}/config", tags=["iceberg"])
    async def get_config() -> CatalogConfig:
        """Which routes there are; nothing is to be set."""
        return CatalogConfig(defaults={}, overrides={}, endpoints=ENDPOINTS)

    @app.get(f"{ROOT}/namespaces", tags=["iceberg"])
    async def list_namespaces(
        parent: Annotated[str | None, Query(description="Namespaces beneath this one")] = None,
    ) -> NamespaceList:
        """The one namespace that holds all datasets."""
        if parent:
            require_namespace(parent)
        return NamespaceList(namespaces=[] if parent else [[NAMESPACE]])

    @app.get(f"{ROOT}/namespaces/{{namespace}}", tags=["iceberg"])
    async def get_namespace(namespace: InNamespace) -> Namespace:
        """The namespace, which has no properties."""
        require_namespace(namespace)
        return Namespace(namespace=[NAMESPACE], properties={})

    @app.head(f"{ROOT}/namespaces/{{namespace}}", tags=["iceberg"], status_code=204)
    async def check_namespace(namespace: InNamespace) -> None:
        """Whether there is such a namespace."""
        require_namespace(namespace)

    @app.get(f"{ROOT}/namespaces/{{namespace}}/tables", tags=["iceberg"])
    async def list_tables(namespace: InNamespace) -> TableIdentifierList:
        """Every dataset is a table."""
        require_namespace(namespace)
        names = await catalogue.list_names()
        return TableIdentifierList(
            identifiers=[TableIdentifier(namespace=[NAMESPACE], name=name) for name in names]
        )

    @app.get(
        f"{ROOT}/namespaces/{{namespace}}/tables/{{table}}",
        tags=["iceberg"],
        response_class=Response,
        responses={200: {"content": {"application/json": {}}, "description": "LoadTableResult"}},
    )
    async def load_table(namespace: InNamespace, table: str) -> Response:
        """A table's metadata as it is now, with where its file lies."""
        require_namespace(namespace)
        return Response(await catalogue.load_result(table), media_type="application/json")

    @app.head(
        f"{ROOT}/namespaces/{{namespace}}/tables/{{table}}", tags=["iceberg"], status_code=204
    )
    async def check_table(namespace: InNamespace, table: str) -> None:
        """Whether there is such a table."""
        require_namespace(namespace)
        await catalogue.get_dataset(table)


def require_namespace(namespace: str) -> None:
    """Lets the one namespace pass.

    Raises:
        NotFound: another is named.
    """
    if namespace != NAMESPACE:
        raise NotFound(
            f"There is no such namespace; all datasets are in {NAMESPACE!r}.",
            details={"namespace": namespace},
        )
