"""Measurements of what the README claims; evidence lies in `evidence/`."""
