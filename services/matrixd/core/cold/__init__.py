"""Cold retrieval: what a search gives before any experience, comparable between corpora.

Each corpus is calibrated once from its own documents; a query's candidates of all corpora
then get probabilities of being relevant that may be merged. Nothing here knows the playbook.
"""

from services.matrixd.core.cold.calibration import (
    Calibration,
    Probe,
    choose_probes,
    fit_calibration,
)
from services.matrixd.core.cold.candidates import Candidates, ColdList, Floats, Ref, find_first
from services.matrixd.core.cold.scoring import rank_cold

__all__ = [
    "Calibration",
    "Candidates",
    "ColdList",
    "Floats",
    "Probe",
    "Ref",
    "choose_probes",
    "find_first",
    "fit_calibration",
    "rank_cold",
]
