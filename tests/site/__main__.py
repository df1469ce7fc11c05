"""Seeds by hand: python -m tests.site FIRST [LAST] [--long] [--log]."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.site.runs import run_seed


def main() -> None:
    """Run them, and print what happened."""
    numbers = [int(each) for each in sys.argv[1:] if each.isdigit()]
    is_long, keeps_log = "--long" in sys.argv, "--log" in sys.argv
    seen: Counter[str] = Counter()
    began, failed = time.process_time(), []
    for seed in range(numbers[0], numbers[-1] + 1):
        try:
            done = run_seed(seed, is_long=is_long, keeps_log=keeps_log)
        except AssertionError as error:
            if len(numbers) == 1:
                raise
            failed.append(seed)
            print(str(error).splitlines()[0], flush=True)
            continue
        seen += done.seen
        if keeps_log:
            print("\n".join(done.lines))
    print(", ".join(f"{name}: {count}" for name, count in sorted(seen.items())))
    print(f"{numbers[-1] - numbers[0] + 1} seeds, failed: {failed or 'none'}")
    print(f"{time.process_time() - began:.1f} s of processor time")


main()
