"""Config refinement: which declared configuration serves logged runs best, and since when."""
