"""Side effects of catalogd: the catalogue's database, Iceberg metadata, Parquet footers.

`pointers` needs SQLAlchemy alone. pyiceberg takes half a second and 20 MiB to load, so the
rooms that use it are imported by the first call that touches a dataset.
"""
