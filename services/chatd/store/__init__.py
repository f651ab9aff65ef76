"""Side effects of chatd: connections to providers, keys, the ledger, streams."""
