"""The lakehouse command: its verbs, and how they speak."""
