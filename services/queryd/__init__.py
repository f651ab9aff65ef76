"""queryd owns SQL: SELECT over the catalogue's datasets, run in sandboxed worker processes."""
