"""`python -m tests.fuzz`: see the package."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpora, linecover, running, targets

KEPT_MAX = 60


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers by coverage.")
    parser.add_argument("target", nargs="*", metavar="TARGET", help=", ".join(targets.NAMES))
    parser.add_argument("--all", action="store_true", help="every target, one after another")
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each  [default: 100000]")
    parser.add_argument("--seconds", type=int, default=0, help="at most that long each  [default: no limit]")
    parser.add_argument("--corpus", type=Path, help="a directory that keeps the inputs of each target  [default: none]")
    parser.add_argument("--findings", type=Path, help="where to put inputs that show something wrong")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="make the kept corpus of inputs that are there")
    parser.add_argument("--lines", action="store_true", help="print how much the kept corpora reach")
    given = parser.parse_args(arguments)
    unknown = set(given.target) - set(targets.NAMES)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}")
    names = [*targets.NAMES] if given.all or (given.lines and not given.target) else given.target
    if not names:
        parser.error("name a target, or give --all")
    if given.lines:
        print("\n".join(map(lines_line, names)))
        return 0
    if given.keep:
        for name in names:
            print(f"{name}: {keep(name, given.keep / name)} inputs kept")
        return 0
    return fuzz(names, given.runs, given.corpus, given.findings, given.seconds)


def fuzz(names: list[str], runs: int, corpus: Path | None, findings: Path | None, seconds_max: int = 0) -> int:
    """Fuzz targets one after another, and print a line of each; whether anything was found."""
    print(running.Outcome.HEADING, flush=True)
    are_sound = True
    with tempfile.TemporaryDirectory(prefix="mirrortool-fuzz-") as meanwhile:
        kept = findings or Path(tempfile.mkdtemp(prefix="mirrortool-findings-"))
        for name in names:
            outcome = fuzz_target(name, runs, (corpus or Path(meanwhile)) / name, kept / name, seconds_max)
            are_sound &= not (outcome.findings or outcome.ended)
            print(outcome, flush=True)
        if not are_sound:
            print(f"the inputs are in {kept}")
    return 0 if are_sound else 1


def fuzz_target(name: str, runs: int, corpus: Path, findings: Path, seconds_max: int = 0) -> running.Outcome:
    """Fuzz one target, beginning with its seeds and its kept inputs."""
    begin(name, corpus)
    target = targets.load(name)
    bytes_max = getattr(target, "BYTES_MAX", targets.BYTES_MAX_DEFAULT)
    tokens = getattr(target, "TOKENS", ())
    return running.run(name, runs, corpus, findings, bytes_max=bytes_max, tokens=tokens, seconds_max=seconds_max)


def begin(name: str, place: Path) -> None:
    """Put a target's seeds and its kept inputs into a directory."""
    place.mkdir(parents=True, exist_ok=True)
    for data in [*targets.load(name).seeds(), *corpora.load(name).values()]:
        (place / hashlib.sha1(data).hexdigest()).write_bytes(data)


def keep(name: str, place: Path) -> int:
    """Keep the fewest inputs of a directory that reach all that those there reach; named ones stay."""
    target = targets.load(name)
    named = {each: data for each, data in corpora.load(name).items() if not each.isdigit()}
    inputs = sorted(
        {*target.seeds(), *(each.read_bytes() for each in place.iterdir())}, key=lambda data: (len(data), data)
    )
    reached = linecover.lines_reached(target.fuzz_one, inputs, target.MODULES)
    chosen = linecover.fewest(reached, list(map(len, inputs)), KEPT_MAX)
    corpora.save(name, named | {f"{number:03d}": inputs[each] for number, each in enumerate(chosen, 1)})
    return len(chosen)


def lines_line(name: str) -> str:
    """How many lines of each module of a target its kept corpus reaches."""
    target = targets.load(name)
    inputs = [*corpora.load(name).values()]
    reached = set().union(*linecover.lines_reached(target.fuzz_one, inputs, target.MODULES), set())
    parts = []
    for module in target.MODULES:
        every = linecover.lines_of([module])
        parts.append(f"{module.removeprefix('mirrortool.')} {100 * len(reached & every) // len(every)} %")
    return f"{name} ({len(inputs)} inputs): {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
