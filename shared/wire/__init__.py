"""Request and response models: the contract of each daemon. Imports pydantic only."""
