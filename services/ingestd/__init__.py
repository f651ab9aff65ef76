"""ingestd: files become tables; every row typed without loss, or kept as a reject."""
