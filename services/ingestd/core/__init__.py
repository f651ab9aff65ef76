"""What ingestd decides: options, dialect, layout, records, types, contracts. No I/O."""
