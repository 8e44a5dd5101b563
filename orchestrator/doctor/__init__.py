"""The doctor command: find what would make a sweep fail."""
