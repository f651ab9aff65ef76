"""Bringing an index back at a start: local snapshots first, then storage, then the journal."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from services.vectord.store.figures import Figures
from services.vectord.store.files import Damaged
from services.vectord.store.index import VectorIndex
from services.vectord.store.loading import (
    SNAPSHOTS,
    Definition,
    Restored,
    align,
    first_readable,
    local_labels,
    replay,
    restore,
)
from services.vectord.store.pools import Pools
from services.vectord.store.remote import Remote
from shared.errors import LakehouseError
from shared.journal import Journal, Report

logger = logging.getLogger("lakehouse.vectord")

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """An index as it came back.

    `problems` tells what was damaged; `suspect` that the stored snapshot may be, and should
    be stored anew; `stored_seqs` what it covers otherwise.
    """

    index: VectorIndex
    definition: Definition
    problems: list[str]
    suspect: bool
    stored_seqs: list[int]


async def recover(
    definition: Definition,
    folder: Path,
    journal: Journal,
    remote: Remote,
    pools: Pools,
    figures: Figures,
) -> Recovered:
    """Opens the journal and gives the index with everything that was acknowledged.

    Waits for storaged only where the local snapshots do not suffice.

    Raises:
        Damaged: records are in no intact file; the index must not be served without them.
    """
    pool = pools.load
    opened = await pool.run(journal.open)
    found = await pool.run(restore, folder / SNAPSHOTS, local_labels(folder))
    stored = definition.stored
    if stored and (found.label is None or found.label < stored):
        found = await _restore_remote(definition, folder, found, remote, pools)
    problems: list[str] = []
    aligned = align(definition, journal, found.seq)
    if found.seq + 1 < first_readable(aligned, journal):
        raise Damaged(
            "no intact snapshot reaches the records that the journal still holds; "
            + "; ".join(found.problems)
        )
    if aligned != definition:
        problems.append("the local journal was lost; the stored snapshot was taken")
        await pool.run(aligned.write, folder)
    report = Report()
    index, assembler = await pool.run(replay, aligned, journal, found, report)
    if stored and index.view.seq < int(stored.partition("-")[0]):
        raise Damaged("records that a stored snapshot covered are in no intact file")
    problems += found.problems
    lost = report.missing + assembler.damaged
    if lost or report.damaged:
        figures.lost.inc(lost)
        problems.append(
            f"the journal is damaged: {lost} records could not be read; "
            "the damaged bytes are kept in its quarantine"
        )
    if opened.torn or assembler.torn:
        logger.info("Index %s: an unfinished write was dropped", definition.spec.name)
    suspect = bool(found.problems)
    covered = [found.seq] if found.label and found.label == stored and not suspect else []
    return Recovered(index, aligned, problems, suspect, covered)


async def _restore_remote(
    definition: Definition, folder: Path, found: Restored, remote: Remote, pools: Pools
) -> Restored:
    """Looks in storage for a newer snapshot than the local ones that are intact."""
    name, uid = definition.spec.name, definition.uid
    while True:
        try:
            labels = (await remote.list_labels()).get((name, uid), [])
            for label in labels:
                if found.label is not None and label <= found.label:
                    break
                try:
                    await remote.fetch(name, uid, label, folder / SNAPSHOTS)
                except Damaged as error:
                    found.problems.append(str(error))
                    continue
                fetched = await pools.load.run(restore, folder / SNAPSHOTS, [label])
                fetched.problems = found.problems + [
                    problem.replace("the local snapshot", "the stored snapshot")
                    for problem in fetched.problems
                ]
                if fetched.label is not None:
                    return fetched
                found.problems = fetched.problems
        except LakehouseError as error:
            logger.warning("Index %s waits for storaged: %s", name, error.message)
            await asyncio.sleep(_RETRY_S)
        else:
            return found
