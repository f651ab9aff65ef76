"""The console's decisions: sessions, origins, wording, plots, drawings. No I/O, no framework."""
