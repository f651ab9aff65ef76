"""Workflows: what a valid one is, which node runs next, and with what."""
