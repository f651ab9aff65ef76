"""chatd: one edge for local and cloud chat models, in three protocols and one ledger."""
