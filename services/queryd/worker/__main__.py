"""The template of all workers: `python -m services.queryd.worker SETTINGS`, by the daemon alone."""

import sys

if __name__ == "__main__":
    # pyarrow imports numpy if it is there, for conversions that no worker makes; without it a
    # worker starts in half the time and is 12 MB smaller.
    sys.modules["numpy"] = None  # type: ignore[assignment]

    from services.queryd.worker.template import main

    main(sys.argv[1])
