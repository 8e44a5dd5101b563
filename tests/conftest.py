"""Shared by all tests: small machines, so one thread, and no network."""
