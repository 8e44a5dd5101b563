"""Seeds: every random choice follows from a seed and its purpose, never from order or time."""

from __future__ import annotations

import hashlib


def seed_for(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) for the purpose that `parts` name, e.g. (sweep seed, "trial", 7)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
