"""Each target fuzzed by coverage for a while: `pytest -m soak -s tests/fuzz`; longer with `python -m tests.fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.__main__ import fuzz_target
from tests.fuzz.running import Outcome

RUNS = 100_000


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", targets.NAMES)
def test_nothing_is_found(tmp_path: Path, name: str) -> None:
    pytest.importorskip("atheris")
    outcome = fuzz_target(name, RUNS, tmp_path / "corpus", tmp_path / "findings")
    print(f"\n{Outcome.HEADING}\n{outcome}")
    assert not outcome.findings and not outcome.ended
    assert outcome.executions >= RUNS
