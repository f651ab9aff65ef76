"""vectord: vector indexes with HNSW, BM25 beside them, exact filters, durable before answered."""
