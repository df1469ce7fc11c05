"""python -m tests.mutation: run mutants of the package's source against the tests that find them."""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.mutation import sample
from tests.mutation.mutant import Mutant
from tests.mutation.runner import RUN_SECONDS, TEST_SECONDS, Result, Workshop, workshop

LISTS = {name: f"tests.mutation.{name}" for name in ("sample", "syncs", "orders", "planted")}
"""Lists of mutants, each a module with `mutants()`."""
CONTROL = ("tests/test_checksum.py", "tests/journal/test_format.py", "tests/cli/test_options.py")
"""These, and the tests of all mutants, pass without a mutant, or what fails with one says nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants of a list; 1 if one survives that nobody argues for."""
    options = _parser().parse_args(arguments)
    mutants = [each for each in importlib.import_module(LISTS[options.name]).mutants() if _is_wanted(each, options)]
    for id in sample.gone() if options.name == "sample" else []:
        print(f"gone: {id}")
    if options.list:
        for each in mutants:
            print(each.id, each.lines(), *each.tests, *[f"argued: {each.argument}"] * bool(each.argument), sep="\n    ")
        return 0
    results = _run(mutants, options)
    count = Counter(results[each].outcome if each in results else "argued" for each in mutants)
    print(*(f"{count[outcome]} {outcome}" for outcome in sorted(count)), sep=", ", end=f" of {len(mutants)}, ")
    print(f"{sum(result.seconds for result in results.values()):.0f} s")
    survivors = [(each, result.outcome) for each, result in results.items() if not result.is_found]
    for each, outcome in survivors:
        print(f"{outcome}: {each.id} ({each.lines()})")
    return int(bool(survivors))


def _run(mutants: Sequence[Mutant], options: argparse.Namespace) -> dict[Mutant, Result]:
    """What became of each that is not argued for."""
    results = {}
    with workshop() as place:
        place.require_passing(sorted({*CONTROL, *options.tests, *(test for each in mutants for test in each.tests)}))
        for number, each in enumerate(mutants, 1):
            told = f"[{number}/{len(mutants)}] {each.id}"
            if each.argument and not options.argued:
                print(f"{told}: argued")
                continue
            result = results[each] = _run_one(place, each, options)
            print(f"{told}: {result.outcome} {result.test} ({result.seconds:.1f} s)", flush=True)
    return results


def _run_one(place: Workshop, mutant: Mutant, options: argparse.Namespace) -> Result:
    """Its tests; if they do not find it and we are to search, further ones, stage after stage."""
    limits = {"test_seconds": options.test_seconds, "run_seconds": options.run_seconds}
    result, seconds = Result("new", "", 0), 0.0
    known = [options.tests or mutant.tests] if options.tests or mutant.tests else []
    for tests in itertools.chain(known, itertools.islice(sample.stages(mutant, place.root), options.search)):
        result = place.run(mutant, tests, **limits)
        seconds += result.seconds
        if result.is_found:
            break
    if options.search and result.is_found:
        sample.save({mutant.id: result.test})
    return replace(result, seconds=seconds)


def _is_wanted(mutant: Mutant, options: argparse.Namespace) -> bool:
    return not options.filter or any(re.search(each, mutant.id) for each in options.filter)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("name", choices=LISTS, help="list of mutants")
    parser.add_argument("--list", action="store_true", help="print the mutants and their tests; run nothing")
    parser.add_argument("-k", "--filter", action="append", help="only mutants whose id this pattern finds; or")
    parser.add_argument("--tests", nargs="+", default=(), help="run these tests in place of the mutant's own")
    parser.add_argument("--search", type=int, nargs="?", const=99, default=0, metavar="STAGES",
                        help="of the sample: look for a test in this many stages (all), and note it")  # fmt: skip
    parser.add_argument("--argued", action="store_true", help="run those that are argued for, too")
    parser.add_argument("--test-seconds", type=float, default=TEST_SECONDS, help="a test that takes longer hangs")
    parser.add_argument("--run-seconds", type=float, default=RUN_SECONDS, help="for all tests of one mutant")
    return parser


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # so that the tests that run, in a session of their own, end too


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main())
