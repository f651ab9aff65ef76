"""Decisions of matrixd: no I/O, no framework, no clock."""
