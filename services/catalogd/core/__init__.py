"""Decisions of catalogd: types, schemas, snapshots, ingest ids. No I/O, no clock."""
