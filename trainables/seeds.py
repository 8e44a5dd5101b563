"""Seeds: every random choice follows from a seed and what it is for, never from order or time."""

from __future__ import annotations

import hashlib


def seed_for(*parts: int | str) -> int:
    """A seed in [0, 2**63) for what `parts` name, e.g. (sweep seed, "trial", 7)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
