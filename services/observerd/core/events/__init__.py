"""What happened: events settled, kept in a ring, counted, and put together to runs."""
