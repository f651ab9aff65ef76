"""Side effects of pathwayd: the log, the search index in memory, the way to embedd."""
