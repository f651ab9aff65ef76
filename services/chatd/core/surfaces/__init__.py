"""What clients speak: requests read, answers and streams written, one module a protocol."""
