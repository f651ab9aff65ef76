"""Decisions of embedd: tokens, batches, keys and names. No I/O, no framework, no clock."""
