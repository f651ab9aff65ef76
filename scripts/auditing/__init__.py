"""Audits of the scorer: a sample of what it accepted, judged again by a frontier model."""
