"""Long loops of which the ordinary suite does one part, and `pytest -m soak` the others: together they do all."""

from __future__ import annotations

import pytest


def in_parts(parts: int) -> pytest.MarkDecorator:
    """Call a test with `part`, 0 in the ordinary suite, 1 … parts-1 in the soak.

    Its numbers n are to be done where n % parts == part, plus what makes neighbouring parameters take others.
    """
    rest = [pytest.param(number, marks=pytest.mark.soak) for number in range(1, parts)]
    return pytest.mark.parametrize("part", [0, *rest])
