"""A whole site from one seed (site.py): nothing promised is broken, and the mirror reaches the primary in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.fakes.environment import SOURCE
from tests.site.runs import run_seed

SEEDS = 40
A_TEST = 4
"""Seeds that one test runs."""


@pytest.mark.parametrize("first", range(0, SEEDS, A_TEST))
def test_a_site_keeps_its_promises(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + A_TEST):
        seen.update(run_seed(seed).seen)
    assert all(seen[each] for each in ("connection", "acknowledged", "write", "zero", "flush", "looked at the mirror"))


def test_the_same_seed_is_the_same_run_in_another_process() -> None:
    command = [sys.executable, "-m", "tests.site", "7", "--log"]
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=True)
    lines = run_seed(7, keeps_log=True).lines
    assert len(lines) > 300
    assert done.stdout.splitlines()[: len(lines)] == lines
