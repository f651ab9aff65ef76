"""Side effects of the daemon: worker processes, catalogue look-ups, streamed answers."""
