"""python -m tests.mutation: run mutants of the package's source against the tests that find them."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections import Counter
from collections.abc import Sequence

from tests.mutation.mutant import Mutant
from tests.mutation.runner import RUN_SECONDS, TEST_SECONDS, Result, workshop

LISTS: dict[str, str] = {}
"""Lists of mutants, each a module with `mutants()`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants of a list; 1 if one survives that nobody argues for."""
    options = _parser().parse_args(arguments)
    mutants = [each for each in importlib.import_module(LISTS[options.name]).mutants() if _is_wanted(each, options)]
    if options.list:
        for each in mutants:
            print(each.id, each.lines(), *each.tests, *[f"argued: {each.argument}"] * bool(each.argument), sep="\n    ")
        return 0
    results = _run(mutants, options)
    count = Counter("argued" if each.argument else results[each].outcome for each in mutants)
    print(*(f"{count[outcome]} {outcome}" for outcome in sorted(count)), sep=", ", end=f" of {len(mutants)}, ")
    print(f"{sum(result.seconds for result in results.values()):.0f} s")
    survivors = [each for each, result in results.items() if not result.is_found]
    for each in survivors:
        print(f"survived: {each.id} ({each.lines()})")
    return int(bool(survivors))


def _run(mutants: Sequence[Mutant], options: argparse.Namespace) -> dict[Mutant, Result]:
    """What became of each that is not argued for."""
    results = {}
    with workshop() as place:
        for number, each in enumerate(mutants, 1):
            told = f"[{number}/{len(mutants)}] {each.id}"
            if each.argument and not options.argued:
                print(f"{told}: argued")
                continue
            result = results[each] = place.run(
                each, options.tests, test_seconds=options.test_seconds, run_seconds=options.run_seconds
            )
            print(f"{told}: {result.outcome} {result.test} ({result.seconds:.1f} s)", flush=True)
    return results


def _is_wanted(mutant: Mutant, options: argparse.Namespace) -> bool:
    return not options.filter or any(re.search(each, mutant.id) for each in options.filter)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("name", choices=LISTS, help="list of mutants")
    parser.add_argument("--list", action="store_true", help="print the mutants and their tests; run nothing")
    parser.add_argument("-k", "--filter", action="append", help="only mutants whose id this pattern finds; or")
    parser.add_argument("--tests", nargs="+", default=(), help="run these tests in place of the mutant's own")
    parser.add_argument("--argued", action="store_true", help="run those that are argued for, too")
    parser.add_argument("--test-seconds", type=float, default=TEST_SECONDS, help="a test that takes longer hangs")
    parser.add_argument("--run-seconds", type=float, default=RUN_SECONDS, help="for all tests of one mutant")
    return parser


if __name__ == "__main__":
    sys.exit(main())
