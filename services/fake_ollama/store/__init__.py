"""Side effects of fake_ollama: what it received, and answers that wait, break or stream."""
