"""Side effects of catalogd: the catalogue's database, Iceberg metadata, Parquet footers.

`pointers` needs SQLAlchemy alone. pyiceberg and pyarrow take 60 MiB and a second to load,
so the rooms that use them are imported by the first call that touches a dataset.
"""
