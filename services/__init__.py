"""One package per daemon; none imports another."""
