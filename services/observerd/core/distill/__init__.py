"""Distillation: rated runs judged, kept clean of held-out data, and written as training data.

`scores` holds what a verdict may be (ADR-005), `replies` reads what a scorer sent, `scorer` is
the deterministic one, `firewall` keeps held-out data out, `export` writes the rows and their
manifest, `baselines` chains the audits.
"""
