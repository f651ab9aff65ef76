"""Decisions of chatd: translations, routing, retries, prices. No I/O, no framework, no clock."""
