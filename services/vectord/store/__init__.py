"""Side effects of vectord: rows, graphs, text, journals, snapshots.

The modules here that import numpy, hnswlib, Arrow or tantivy are themselves imported on
first use only. Searches run in threads of their own, so the linear algebra beneath numpy
must not start more for each of them: it reads that from the environment when it is loaded.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
