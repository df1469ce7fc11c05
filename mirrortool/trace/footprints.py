"""The pages of a unit as a picture names them."""

from __future__ import annotations

from mirrortool.replay.tracing import UnitRun


def run_text(run: tuple[int, int]) -> str:
    """A run of pages, by its first and its last."""
    first, count = run
    return f"{first}-{first + count - 1}" if count > 1 else str(first)


def pages_of(unit: UnitRun) -> str:
    """The first run of its pages, and how many more there are."""
    more = len(unit.footprint) - 1
    return f"{run_text(unit.footprint[0])} +{more}" if more else run_text(unit.footprint[0])
