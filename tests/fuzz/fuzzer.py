"""The process in which atheris runs one target: `python -m tests.fuzz.fuzzer TARGET FINDINGS -runs=N ... CORPUS`.

It continues after a finding: the first input of each kind and place is kept in the directory FINDINGS, with what was
wrong beside it. Mutations are libFuzzer's, and after them the target's own: see sealing.py.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
from pathlib import Path
from types import ModuleType

import atheris

with atheris.instrument_imports(include=["mirrortool"]):
    from tests.fuzz import targets
    from tests.fuzz.judging import PEAK_BYTES_MAX, Finding, judge

    TARGET = targets.load(sys.argv[1])

RAW_ONE_IN = 12
"""One mutation in this many is libFuzzer's alone, so that broken seals are tried, too."""


class Findings:
    """What was found, each kind and place once, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: set[tuple[str, str]] = set()
        self.executions = 0

    def note(self, finding: Finding, data: bytes) -> None:
        if finding.key in self._known:
            return
        self._known.add(finding.key)
        name = f"{len(self._known):03d}"
        (self._directory / f"{name}.input").write_bytes(data)
        (self._directory / f"{name}.text").write_text(f"{finding}\n", errors="replace")
        print(f"FINDING after {self.executions} executions: {finding}", flush=True)


def limit_memory() -> None:
    """One input may not need more than PEAK_BYTES_MAX beside what the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + PEAK_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(target: ModuleType, findings: Findings, options: list[str]) -> None:
    fuzz_one = target.fuzz_one
    for seed in target.seeds():  # makes what is used again and again
        judge(fuzz_one, seed)
    limit_memory()
    chance = random.Random()
    own = getattr(target, "mutate", None)

    def run(data: bytes) -> None:
        finding = judge(fuzz_one, data)
        findings.executions += 1
        if finding:
            findings.note(finding, data)

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        chance.seed(seed)
        if own is None or chance.randrange(RAW_ONE_IN) == 0:
            return bytes(atheris.Mutate(data, bytes_max))
        try:
            return bytes(own(data, bytes_max, chance, atheris.Mutate))[:bytes_max]
        except (struct.error, ArithmeticError, LookupError):  # numbers that no seal can hold
            return bytes(atheris.Mutate(data, bytes_max))

    atheris.Setup([sys.argv[0], *options], run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(TARGET, Findings(Path(sys.argv[2])), sys.argv[3:])
