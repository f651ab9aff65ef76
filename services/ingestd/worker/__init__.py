"""The worker process: one file at a time becomes Parquet, away from the daemon.

It is started by exec, so that a crash, a runaway or a hang never harms the daemon, and its
memory goes back when it ends. DuckDB and numpy are loaded here alone.
"""
