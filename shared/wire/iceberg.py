"""The Iceberg REST catalogue protocol, as far as readers need it.

Names are the protocol's own. What a table is comes as the specification has it, read from the
table's own metadata and passed on; it is not modelled here.
"""

from __future__ import annotations

from pydantic import Field

from shared.wire.base import Response

# Where the protocol lives; clients are given this path and add `/v1/…` themselves.
ICEBERG_PATH = "/iceberg"


class CatalogConfig(Response):
    """What a client is to know first: settings, and which routes there are."""

    defaults: dict[str, str]
    overrides: dict[str, str]
    endpoints: list[str]


class NamespaceList(Response):
    """Namespaces, each as its levels."""

    namespaces: list[list[str]]


class Namespace(Response):
    """One namespace."""

    namespace: list[str]
    properties: dict[str, str]


class TableIdentifier(Response):
    """A table's full name."""

    namespace: list[str]
    name: str


class TableIdentifierList(Response):
    """Tables of a namespace, all at once."""

    identifiers: list[TableIdentifier]
    next_page_token: str | None = Field(default=None, serialization_alias="next-page-token")
