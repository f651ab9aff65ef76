"""The tables of the catalogue's database.

The first two are laid out as every JDBC catalogue of Iceberg has them, and pyiceberg finds
them as its own; the other two are ours.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

# The names under which Iceberg clients find the datasets: catalogue, then namespace.
CATALOG = "lakehouse"
NAMESPACE = "lakehouse"

SCHEMA = MetaData()

TABLES = Table(
    "iceberg_tables",
    SCHEMA,
    Column("catalog_name", String(255), primary_key=True),
    Column("table_namespace", String(255), primary_key=True),
    Column("table_name", String(255), primary_key=True),
    Column("metadata_location", String(1000)),
    Column("previous_metadata_location", String(1000)),
    Column("iceberg_type", String(5)),
)
NAMESPACES = Table(
    "iceberg_namespace_properties",
    SCHEMA,
    Column("catalog_name", String(255), primary_key=True),
    Column("namespace", String(255), primary_key=True),
    Column("property_key", String(255), primary_key=True),
    Column("property_value", String(1000), nullable=False),
)
# A name's identity, from its reservation to its deletion. `description` is what the wire
# says about the dataset as of `metadata_location`, so that listing opens no file.
DATASETS = Table(
    "lakehouse_datasets",
    SCHEMA,
    Column("name", String(255), primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("metadata_location", String(1000)),
    Column("description", Text),
)
INGESTS = Table(
    "lakehouse_ingests",
    SCHEMA,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("dataset_uuid", String(36), nullable=False),
    Column("ingest_id", String(300), nullable=False),
    Column("mode", String(10), nullable=False),
    Column("snapshot_id", BigInteger, nullable=False),
    Column("schema_id", Integer, nullable=False),
    Column("record", Text),
    Column("made_ms", BigInteger, nullable=False),
    UniqueConstraint("dataset_uuid", "ingest_id"),
)
