"""Correct predictions as text: what was packed comes back, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.correct_predictions import pack, unpack


@given(st.lists(st.booleans()))
def test_what_was_packed_comes_back(correct: list[bool]) -> None:
    assert unpack(pack(np.array(correct, dtype=bool)), len(correct)).tolist() == correct


@pytest.mark.parametrize(("text", "rows"), [(pack(np.ones(9, dtype=bool)), 8), ("?", 8), ("AA=", 8)])
def test_text_of_something_else_is_refused(text: str, rows: int) -> None:
    with pytest.raises(ValueError, match=r"rows|base64|padding"):
        unpack(text, rows)
