"""The sections of the configuration: one frozen class each, by area."""
