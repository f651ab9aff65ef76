"""scrum_review: models of several lineages review a diff."""
