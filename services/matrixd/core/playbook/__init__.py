"""The playbook: what was tried for a query, how it was rated, and what that tells a search.

Episodes are the truth; notes, needs and trust are worked out from them and can be again.
"""

from services.matrixd.core.playbook.book import Playbook
from services.matrixd.core.playbook.episodes import Episode, Rating
from services.matrixd.core.playbook.notes import find_shown
from services.matrixd.core.playbook.views import (
    Contribution,
    NoteUse,
    NoteView,
    Reranked,
    SourceView,
)

__all__ = [
    "Contribution",
    "Episode",
    "NoteUse",
    "NoteView",
    "Playbook",
    "Rating",
    "Reranked",
    "SourceView",
    "find_shown",
]
