"""The console: the fleet as pages for a person, at /console. Reads it through shared/clients."""
