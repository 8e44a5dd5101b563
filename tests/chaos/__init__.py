"""Real faults against the real command: `make chaos`."""
