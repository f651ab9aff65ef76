"""observerd owns observation and workflows: what ran, how it went, and what runs next."""
