"""Tests, in the tiers of docs and `scripts/verify`."""

import os

# Tests run in as many processes as there are processors: more threads of linear algebra only
# wait for each other, and burn the processors meanwhile. Before anything imports numpy.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
