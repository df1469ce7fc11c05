"""A site does anything, in any order: its history is the model's, its mirrors are what they say, and damage is found.

The suite runs always the same examples. Others, for ten minutes: python -m tests.machine 600
"""

from __future__ import annotations

from pathlib import Path

from tests.machine.verbs import Machine, run

EXAMPLES = 70


def test_whatever_a_site_does_its_history_is_kept_and_its_mirrors_tell_the_truth() -> None:
    done = run(EXAMPLES)
    for verb in ("replay", "ship", "base", "pruned files", "promote", "cut", "power lost", "verify", "journal: flip"):
        assert done[verb] >= 3, (verb, done)
    assert done["steps"] > 1000


def test_each_module_with_verbs_is_in_the_machine() -> None:
    """One that is forgotten in the list would test nothing."""
    modules = [path for path in Path(__file__).parent.glob("[a-z]*.py") if not path.name.startswith("test_")]
    with_rules = {f"tests.machine.{path.stem}" for path in modules if "    @rule(" in path.read_text()}
    assert with_rules == {each.__module__ for each in Machine.__bases__}
