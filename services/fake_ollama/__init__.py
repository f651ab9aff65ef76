"""fake_ollama: an Ollama for tests, faithful on the wire, deterministic, and told how to fail."""
