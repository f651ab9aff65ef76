"""Decisions of storaged: keys and their names, conditions, ranges, caps, listing order."""
