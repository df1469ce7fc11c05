"""One seed, by hand: python -m tests.site SEED [--log]."""

from __future__ import annotations

import sys
import time

from tests.site.runs import run_seed


def main() -> None:
    """Run it, and print what happened."""
    numbers = [int(each) for each in sys.argv[1:] if each.isdigit()]
    began = time.process_time()
    for seed in range(numbers[0], numbers[-1] + 1):
        done = run_seed(seed, keeps_log="--log" in sys.argv)
        if "--log" in sys.argv:
            print("\n".join(done.lines))
        if len(numbers) == 1:
            print(dict(sorted(done.seen.items())))
    print(f"{time.process_time() - began:.2f} s of processor time")


main()
