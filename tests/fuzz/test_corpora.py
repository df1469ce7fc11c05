"""The kept inputs of each target: none shows anything wrong, none needs much memory, and together they reach much."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from tests.fuzz import corpora, linecover, targets
from tests.fuzz.judging import PEAK_BYTES_MAX, judge, peak_bytes

CORPUS_BYTES_MAX = 200_000
PERCENT_MIN = {
    "frames": 55, "journalfiles": 60, "bases": 50, "smallfiles": 35, "logwrites": 75, "fiologs": 70, "nbdserver": 80,
    "nbdclient": 90,
    "messages": 60, "receiving": 65, "sending": 70, "controlsocket": 50, "texts": 55, "traces": 65, "pagesums": 60,
    "images": 90, "indexes": 60,
}  # fmt: skip
"""Of the lines in functions of the modules that a target names; much that is not there only writes."""


@pytest.fixture
def measured() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", targets.NAMES)
def test_no_kept_input_shows_anything_wrong(name: str) -> None:
    target, inputs = targets.load(name), corpora.load(name)
    assert inputs
    found = {each: judge(target.fuzz_one, data) for each, data in inputs.items()}
    assert {each: str(finding) for each, finding in found.items() if finding} == {}


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("name", targets.NAMES)
def test_no_kept_input_needs_much_memory(name: str) -> None:
    target = targets.load(name)
    peaks = {each: peak_bytes(target.fuzz_one, data) for each, data in corpora.load(name).items()}
    assert {each: peak for each, peak in peaks.items() if peak > PEAK_BYTES_MAX} == {}


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_kept_inputs_reach_much_of_each_parser(name: str) -> None:
    target = targets.load(name)
    inputs = [*corpora.load(name).values()]
    reached = set().union(*linecover.lines_reached(target.fuzz_one, inputs, target.MODULES))
    assert 100 * len(reached) >= PERCENT_MIN[name] * len(linecover.lines_of(target.MODULES))


@pytest.mark.parametrize("name", targets.NAMES)
def test_what_the_real_writers_make_is_no_finding(name: str) -> None:
    target = targets.load(name)
    seeds = [*target.seeds()]
    assert seeds and [str(finding) for data in seeds if (finding := judge(target.fuzz_one, data))] == []


def test_the_corpora_stay_small() -> None:
    assert sum(corpora.path_of(name).stat().st_size for name in targets.NAMES) < CORPUS_BYTES_MAX
