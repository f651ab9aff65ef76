"""The tables of the catalogue's database.

The first two are laid out as every JDBC catalogue of Iceberg has them, and pyiceberg finds
them as its own; the others are ours.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
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
# Identities whose datasets were deleted: their files are ours to collect, nobody else's are.
DROPPED = Table(
    "lakehouse_dropped",
    SCHEMA,
    Column("uuid", String(36), primary_key=True),
    Column("dropped_ms", BigInteger, nullable=False),
)
# Files that no retained snapshot names. `taken` is 0 while one only waits for its grace to be
# over, TAKING while it is being removed, and then the epoch in which it was.
ORPHANS = Table(
    "lakehouse_orphans",
    SCHEMA,
    Column("place", Text, primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Index("lakehouse_orphans_taken", "taken"),
)
TAKING = 2**62
# Who does what only one of several catalogd may do at a time, and until when it is theirs.
LEASES = Table(
    "lakehouse_leases",
    SCHEMA,
    Column("name", String(40), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
