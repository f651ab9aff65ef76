"""catalogd: datasets as Iceberg tables, and the only committer to them."""
