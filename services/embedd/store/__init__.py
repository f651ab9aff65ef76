"""Side effects of embedd: models, other servers, the cache's file."""
