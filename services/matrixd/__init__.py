"""matrixd: many corpora searched as one, what is relevant kept, what worked remembered."""
