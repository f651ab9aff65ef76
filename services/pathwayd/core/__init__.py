"""Decisions of pathwayd: no I/O, no framework, no clock."""
