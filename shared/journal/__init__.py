"""The append-only log that every daemon uses: JSON lines, group commit, nothing lost.

    journal = Journal(directory)
    report = journal.open()                    # in the lifespan: after the fork
    seq = await journal.append({"run": "r1"})  # durable when it returns; append_sync in threads
    for record in journal.replay(seq): ...     # Record(seq, t, payload, prev_hash)
    await journal.aclose()

What it promises:
- An append returns after its bytes were synced, never before. One thread writes and syncs
  what all callers handed in meanwhile, so durability costs little when it is busy.
- After a crash at any instant every acknowledged record is there exactly once, in order of
  seq, and seq goes on from the greatest. Records that were not acknowledged may be there
  too: their callers saw an error, or nothing. So a caller who tries again sends an id of
  its own in the payload, and the daemon drops the second one when it replays.
- A failed write or sync makes the journal read-only: everybody who waits and everybody
  later gets InsufficientStorage, and the file is cut back to what was synced, if the disk
  still allows it. A new `open` starts afresh from there.
- Damaged bytes never raise. Intact records around them are read, the bytes are copied to
  `quarantine.jsonl` once, and the `Report` says what is missing.
- One process writes; a second one that opens it is refused. A child forked with an open
  journal is refused too.

The file is plain JSON lines (`record` tells the form), so `jq` reads it.
"""

from shared.journal.checkpoint import Checkpoint
from shared.journal.disk import Disk
from shared.journal.log import Dropped, Journal, JournalStats
from shared.journal.reader import replay_directory
from shared.journal.record import Record
from shared.journal.segments import Report, Segment

__all__ = [
    "Checkpoint",
    "Disk",
    "Dropped",
    "Journal",
    "JournalStats",
    "Record",
    "Report",
    "Segment",
    "replay_directory",
]
