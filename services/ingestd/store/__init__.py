"""What ingestd does: spools bodies, runs workers, stores parts, registers them."""
