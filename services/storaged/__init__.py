"""storaged owns the objects: bytes under keys, durable, with conditional writes and ranges."""
