"""Decisions of observerd: no I/O, no framework, no clock."""
