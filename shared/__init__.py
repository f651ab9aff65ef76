"""What every daemon stands on: config, errors, runtime, journal, wire models, clients."""
