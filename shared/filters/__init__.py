"""The filter language that vectord's items and pathwayd's traces are narrowed by."""
