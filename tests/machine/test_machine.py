"""A site does anything, in any order: its history is the model's, its mirrors are what they say, and damage is found.

The suite runs always the same examples. Others, for ten minutes: python -m tests.machine 600
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine.verbs import Machine, run

EXAMPLES = 12
"""With each seed,."""


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_a_site_does_its_history_is_kept_and_its_mirrors_tell_the_truth(seed: int) -> None:
    done = run(EXAMPLES, seed)
    for verb in ("restored", "replay", "ship", "base", "promote", "power lost", "verify", "journal: flip"):
        assert done[verb], (verb, done)


def test_each_module_with_verbs_is_in_the_machine() -> None:
    """One that is forgotten in the list would test nothing."""
    modules = [path for path in Path(__file__).parent.glob("[a-z]*.py") if not path.name.startswith("test_")]
    with_rules = {f"tests.machine.{path.stem}" for path in modules if "    @rule(" in path.read_text()}
    assert with_rules == {each.__module__ for each in Machine.__bases__}
