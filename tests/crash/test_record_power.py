"""The power fails under a live recorder, at any call: what was flushed is there, and everything agrees.

A cut leaves of each 512-byte block that was not durable the old or the new bytes, in the journal, the volumes, the sums
and the small files alike. The next recorder runs under another kernel. Then every volume is a state that it had, no
older than the newest flush; the journal has the same; and a mirror that followed was never ahead of either.

The ordinary suite cuts 320 times. All 2,120 cuts:
pytest -m "not bench" tests/crash/test_record_power.py -k "survives or torn"
Ten times as many: pytest -m soak tests/crash/test_record_power.py
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.machine import Machine
from tests.fakes.recorders import small_scale
from tests.fakes.volumes import fast_directory, small_journal_files

CUTS = 20
"""A journal's, one after another."""


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


def lose_power_often(directory: str, seed: int, patch: pytest.MonkeyPatch, page_size: int = 512) -> Machine:
    small_scale(patch, page_size)
    small_journal_files(patch, 30 * page_size)
    machine = Machine(directory, seed, patch, page_size)
    for _ in range(CUTS):
        machine.run_until_cut()
        machine.check()
    machine.check_at_the_end()
    return machine


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(12, 100))])
def test_what_was_flushed_survives_a_power_cut_at_any_call(
    directory: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = lose_power_often(directory, seed, monkeypatch)
    assert machine.cuts == CUTS and machine.redone


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.soak)])
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_a_page_torn_by_a_power_cut_is_made_whole(
    directory: str, seed: int, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a page of many blocks some are new and some old."""
    lose_power_often(directory, seed, monkeypatch, page_size)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 2000))
def test_soak_power_cuts(directory: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_power_often(directory, seed, monkeypatch, (512, 4096)[seed % 2])
