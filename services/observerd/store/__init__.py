"""Side effects of observerd: the log, the steps' database, calls to the other daemons."""
