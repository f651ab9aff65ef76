"""pathwayd: the memory of what was tried and how it went, as versioned traces."""
