"""The process that merges Parquet files, for catalogd: nothing of it is loaded there."""
