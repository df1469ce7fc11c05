"""What counts as a finding, and that a mutation that is sealed gets behind the checksums."""

from __future__ import annotations

import random
import time
from types import ModuleType

import pytest

from mirrortool.errors import CorruptJournalError, MirrortoolError
from tests.fuzz import judging, linecover, targets
from tests.fuzz.judging import judge


def _key_error(_: bytes) -> None:
    raise KeyError("x")


def _assertion(_: bytes) -> None:
    raise AssertionError


def _no_memory(_: bytes) -> None:
    raise MemoryError


def _untyped(_: bytes) -> None:
    raise MirrortoolError("a bug")


def _typed(_: bytes) -> None:
    raise CorruptJournalError("damaged", where="x")


def _slow(_: bytes) -> None:
    ends = time.process_time() + 0.05
    while time.process_time() < ends:
        pass


@pytest.mark.parametrize(
    ("fuzz_one", "kind"),
    [
        (_key_error, "KeyError"),
        (_assertion, "AssertionError"),
        (_no_memory, "MemoryError"),
        (_untyped, "MirrortoolError"),
    ],
)
def test_an_error_without_a_type_of_ours_is_a_finding(fuzz_one, kind):
    finding = judge(fuzz_one, b"")
    assert finding and finding.kind == kind and "test_judging.py" in finding.place


def test_a_named_error_is_none():
    assert judge(_typed, b"") is None


def test_an_input_that_takes_long_is_a_finding(monkeypatch):
    assert judge(_slow, b"") is None
    monkeypatch.setattr(judging, "SECONDS_MAX", 0.01)
    finding = judge(_slow, b"")
    assert finding and finding.kind == "slow"


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit is another; not in the first bytes, which say what kind of input it is."""
    changed = bytearray(data)
    changed[chance.randrange(len(data) // 2, len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def decodes(target: ModuleType, data: bytes) -> int:
    """How far an input gets: lines that it reaches."""
    return len(linecover.lines_reached(target.fuzz_one, [data], target.MODULES)[0])


@pytest.mark.parametrize("name", ["frames", "bases", "messages"])
def test_a_sealed_mutation_gets_further_than_a_raw_one(name):
    target, chance = targets.load(name), random.Random(7)
    seed = next(iter(target.seeds()))
    raw = [flipped(seed, chance) for _ in range(30)]
    sealed = [target.mutate(each, 4096, chance, lambda data, _: data) for each in raw]
    assert sum(decodes(target, each) for each in sealed) > sum(decodes(target, each) for each in raw)


def test_fewest_chooses_what_adds_most():
    reached = [{("a", 1)}, {("a", 1), ("a", 2), ("a", 3)}, {("a", 4)}, set()]
    assert linecover.fewest(reached, [1, 9, 5, 1], most=9) == [1, 2]
    assert linecover.fewest(reached, [1, 9, 5, 1], most=1) == [1]
