"""The planted faults can still be planted. That the net finds each: python -m tests.mutation planted."""

from __future__ import annotations

from tests.mutation import planted
from tests.mutation.mutant import ROOT


def test_each_fault_fits_the_source() -> None:
    found = planted.mutants()
    assert len({each.id for each in found}) == len(found) == 10
    for each in found:
        compile(each.source(), each.path, "exec")


def test_the_net_is_there() -> None:
    assert all((ROOT / path).is_file() for path in planted.NET)
