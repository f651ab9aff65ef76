"""embedd: texts become vectors, the same bits for the same text."""
