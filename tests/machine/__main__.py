"""The soak: python -m tests.machine SECONDS [SEED]

Runs examples of the machine for that long, 20 with each seed, and says what was done in them. Where one fails it ends,
with the rules that failed, as few as it finds; the seed that it printed runs them again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter

from mirrortool.mirror import volumeregistry
from tests.fakes import environment
from tests.machine.verbs import run

EXAMPLES = 20


def main(seconds: float, seed: int) -> None:
    environment.clean_ours()
    until, total, rounds = time.monotonic() + seconds, Counter[str](), 0
    with tempfile.TemporaryDirectory() as registry:
        os.environ[volumeregistry.PLACE] = registry
        while time.monotonic() < until:
            print(f"seed {seed + rounds}", flush=True)
            total += run(EXAMPLES, seed + rounds, shrinks=True)
            rounds += 1
    print(f"{rounds} seeds: " + ", ".join(f"{count} {name}" for name, count in total.most_common()))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() // 10**9)
