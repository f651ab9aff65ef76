"""Decisions of fake_ollama: what a pretend model knows and says. No I/O, no clock."""
