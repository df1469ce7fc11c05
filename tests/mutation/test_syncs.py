"""The list of syncs is complete, and says for each what finds it; some of them are tried."""

from __future__ import annotations

import random

import pytest

from tests.mutation import orders
from tests.mutation.mutant import ROOT, Module, modules
from tests.mutation.runner import workshop
from tests.mutation.syncs import SYNCS, Argued, mutants, sync_calls

TRIED = 2


def test_each_call_that_makes_something_durable_is_listed_and_no_other() -> None:
    there = {module.path: {name for name, _ in sync_calls(module)} for module in modules()}
    listed = {path: set(calls) for path, calls in SYNCS.items()}
    assert {path: names for path, names in there.items() if names} == listed
    assert sum(map(len, listed.values())) > 140


def test_what_finds_a_mutant_is_there() -> None:
    for mutant in [*mutants(), *orders.mutants()]:
        assert bool(mutant.tests) != bool(mutant.argument), mutant.id
        for test in mutant.tests:
            path, _, name = test.partition("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not name or f"def {name.partition('[')[0]}(" in text, test


def test_each_mutant_is_another_source() -> None:
    found = [(mutant.path, mutant.source()) for mutant in mutants()]
    assert len(set(found)) == len(found) == sum(map(len, SYNCS.values()))


def test_each_rule_of_order_is_broken_in_one_way() -> None:
    sources = [mutant.source() for mutant in orders.mutants()]
    assert len(set(sources)) == len(sources) > 20


def test_an_argument_says_something() -> None:
    arguments = [found_by for calls in SYNCS.values() for found_by in calls.values() if isinstance(found_by, Argued)]
    assert all(len(each.split()) > 5 for each in arguments)


@pytest.mark.parametrize(
    ("line", "is_listed"),
    [
        ("file.fdatasync()", True),
        ("files.sync_directory(path)", True),
        ("self._sync_sums()", True),
        ("directory._call('make durable', os.fsync)", True),
        ("jsonfile.save(path, {})", True),
        ("files.rename(a, b)", True),
        ("slots.save(journal, slot)", False),
        ("print(now.sync_seconds())", False),
    ],
)
def test_what_counts_as_a_sync(line: str, is_listed: bool, tmp_path: object) -> None:
    path = f"{tmp_path}/module.py"
    with open(path, "w") as file:
        file.write(line)
    assert bool(sync_calls(Module(path))) == is_listed


def test_some_mutants_are_found() -> None:
    """By chance, of those that a module of few seconds finds; all of them: python -m tests.mutation syncs."""
    quick = [mutant for mutant in mutants() if any(test.endswith("test_durable.py") for test in mutant.tests)]
    with workshop() as place:
        for mutant in random.Random("syncs").sample(quick, TRIED):
            assert place.run(mutant).is_found, mutant.id
