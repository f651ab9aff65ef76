#!/usr/bin/env bash
# Three models of different lineages review a diff through the edge's own /v1/chat.
#   scripts/scrum_review.sh BUNDLE.diff LABEL [--tiers frontier_review,frontier_arch,cloud_review]
# Verdicts go to reports/scrum/_evidence/<date>/verdicts/, verbatim; a table of their findings,
# to be filled with what became of each, to disposition.md beside that folder. Needs a running
# fleet (LAKEHOUSE_GATEWAY, LAKEHOUSE_TOKEN) whose tiers have their keys. Exit status: 0 all
# reviewed, 1 some could not, 2 nobody could.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m scripts.scrum.review "$@"
