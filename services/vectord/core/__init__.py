"""Decisions of vectord: no I/O, no framework, no clock."""
