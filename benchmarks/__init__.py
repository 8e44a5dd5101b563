"""Measurements of what the README claims; their evidence is in `evidence/`."""
