"""A sample of the mutants of the package's source, chosen by one seed: tests find them, or an argument says why not.

Rule: of all mutants of these modules, the sample has those whose ids have the lowest numbers under the seed. So larger
modules have more of them, and an edit of one place changes the sample only by the mutants of that place.
found.tsv has the test that found each, survivors.tsv why the others may survive. The ordinary suite compares these two
with each other and with the tests. The code may move on meanwhile: only the command compares them with it, names what
is new or gone, and `--search` looks for a test for what is new.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.mutation import operators
from tests.mutation.mutant import ROOT, Module, Mutant, modules

SEED = 14
COUNT = 100
FOLDERS = ("journal", "replay", "record", "mirror", "store", "verify.py")
"""Of the package: what reads, writes, checks and repairs other people's data."""
_SILENT_MODULES = re.compile(r"/(\w*metrics|tracing|numerals|__init__)\.py$")
FOUND, ARGUED = Path(__file__).with_name("found.tsv"), Path(__file__).with_name("survivors.tsv")
"""What is noted: a line has an id, a tab, and the test that found it or the argument."""
_NAMED_MAX = 5
"""Of the test modules that name a function or its module, this many come first."""
_FOLDERS_BESIDE = {
    "journal": ("tests/record", "tests/replay", "tests/ship", "tests/promote", "tests/status", "tests/crash"),
    "replay": ("tests/trace", "tests/mirror", "tests/promote", "tests/crash"),
    "record": ("tests/promote", "tests/crash"),
    "mirror": ("tests/replay", "tests/promote", "tests/status", "tests/crash"),
    "store": ("tests/replay", "tests/record", "tests/mirror", "tests/crash"),
    "verify": ("tests/mirror", "tests/replay", "tests/promote", "tests/crash"),
}
"""Folders of tests that use a folder of the package most, after its own."""


def mutants() -> list[Mutant]:
    """The sample: each with the test that found it or its argument; what is new has neither."""
    found, argued = load(FOUND), load(ARGUED)
    return [
        replace(each, tests=(found[each.id],) if each.id in found else (), argument=argued.get(each.id, ""))
        for each in chosen()
    ]


def chosen(seed: int = SEED, count: int = COUNT) -> list[Mutant]:
    """Those with the lowest numbers, sorted by id."""
    lowest = sorted(candidates(), key=lambda each: _number(seed, each.id))[:count]
    return sorted(lowest, key=lambda each: each.id)


@cache
def candidates() -> list[Mutant]:
    """All mutants of these folders."""
    return [each for module in modules() if is_sampled(module) for each in operators.mutants(module)]


def is_sampled(module: Module) -> bool:
    return module.path.split("/")[1] in FOLDERS and not _SILENT_MODULES.search(module.path)


def gone() -> list[str]:
    """Ids in the two files that the sample has no more: their place changed, or another's number is lower."""
    return sorted((load(FOUND).keys() | load(ARGUED).keys()) - {each.id for each in chosen()})


def stages(mutant: Mutant, root: Path = ROOT) -> Iterator[list[str]]:
    """Tests of this tree to look through for one that finds a mutant, the cheapest and likeliest first."""
    mirrored, named = _mirrored(mutant, root), _naming(mutant, root)
    folder = mutant.path.removesuffix(".py").split("/")[1]
    if "::" in mutant.id:  # outside of every function
        mirrored.append("tests/docs/test_manuals.py")  # which has the limits
    first = mirrored + [each for each in named if each not in mirrored][:_NAMED_MAX]
    done = set(first)
    if first:
        yield first
    for place in (_nearest_folder(mutant.path, root), f"tests/{folder}", "", "tests/machine tests/site", "tests/cli",
                  *_FOLDERS_BESIDE[folder], "tests/ship", "tests/promote", "tests/docs"):  # fmt: skip
        names = [] if place else [str(path.relative_to(root)) for path in sorted((root / "tests").glob("test_*.py"))]
        names += [str(path.relative_to(root)) for each in place.split() for path in _test_modules(root / each)]
        if new := [each for each in names if each not in done]:
            yield new
            done.update(new)


def save(results: Mapping[str, str]) -> None:
    """Note tests that found mutants, each with all of its cases, and forget what is gone."""
    ids, known = {each.id for each in chosen()}, {**load(FOUND), **results}
    found = {id: test.split("[")[0] for id, test in known.items() if id in ids}
    FOUND.write_text("".join(f"{id}\t{found[id]}\n" for id in sorted(found)), encoding="utf-8")


def load(path: Path) -> dict[str, str]:
    """One of the two files: an id, a tab and a text in each line."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split("\t") for line in lines)


def _number(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed} {id}".encode()).digest()


def _mirrored(mutant: Mutant, root: Path) -> list[str]:
    """Test modules with the module's name in theirs."""
    stem = Path(mutant.path).stem
    folder = root / Path("tests", *Path(mutant.path).parts[1:-1])
    return [str(path.relative_to(root)) for path in sorted(folder.glob(f"test_{stem}*.py"))]


def _naming(mutant: Mutant, root: Path) -> list[str]:
    """Test modules that name the function or the module, those of its folder first, the shortest first."""
    path = Path(mutant.path)
    module = path.with_suffix("").as_posix().replace("/", ".")
    package, stem = module.rsplit(".", 1)
    function = mutant.id.split(":")[1].rsplit(".", 1)[-1].strip("_")
    pattern = re.compile(rf"\b{re.escape(module)}\b|from {re.escape(package)} import [^\n]*\b{stem}\b")
    called = re.compile(rf"\b_?{re.escape(function)}\(") if len(function) > 6 else None
    found = []
    for test, text in _texts(root).items():
        rank = (not test.startswith("/".join(["tests", *path.parts[1:2]])), len(text))
        if called and called.search(text):
            found.append((0, *rank, test))
        elif pattern.search(text):
            found.append((1, *rank, test))
    return [test for *_, test in sorted(found)]


@cache
def _texts(root: Path) -> dict[str, str]:
    paths = _test_modules(root / "tests")
    skipped = ("interop", "bench", "docs", "mutation", "fuzz", "crash", "machine", "site")
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for path in paths if path.relative_to(root).parts[1] not in skipped
    }  # fmt: skip


def _nearest_folder(path: str, root: Path) -> str:
    folder = Path("tests", *Path(path).parts[1:-1])
    while not (root / folder).is_dir():
        folder = folder.parent
    return "tests/nowhere" if folder == Path("tests") else str(folder)


def _test_modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("test_*.py"))
