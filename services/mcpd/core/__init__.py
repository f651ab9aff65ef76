"""Decisions of mcpd: what a tool may do, how much it tells, whose a failure is."""
