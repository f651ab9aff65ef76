"""The only way one daemon speaks to another."""
