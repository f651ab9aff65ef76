"""The sandboxed process that runs one query at a time.

Only this package imports duckdb and pyarrow. It is started by exec and speaks frames
(`core/frames.py`) over the one socket it is given.
"""
