"""Decisions of queryd: what SQL may say, how long it may run, how answers look. No I/O."""
