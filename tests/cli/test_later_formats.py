"""Each small file in a later format: who would use it refuses by its name and format, and says what reads it.

Nothing is taken for absent, or not valid, and so made anew: it stays as it is. The table is that of
mirrortool-journal(5), Later formats.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import mirrortool
from mirrortool.cli.main import main
from mirrortool.jsonfile import FORMAT, MIRROR_FORMAT
from tests.fakes.journals import memory_directory

Capture = pytest.CaptureFixture[str]

# A file, what it holds where the scene has none, the exit code, and commands that refuse it.
CASES: list[tuple[str, dict[str, object], int, list[str]]] = [
    (
        "J/journal.json",
        {},
        14,
        ["record J", "replay J M", "verify J", "export J d OUT", "ship J C --slot c", "promote M --yes"],
    ),
    ("C/journal.json", {}, 14, ["ship J C --slot c", "replay C MC"]),
    ("J/local.json", {}, 14, ["record J", "volume set J d=../disk.img"]),
    ("J/recorder.json", {}, 14, ["record J", "record --scan J", "prune J --keep 1d", "mark J x", "replay J M"]),
    ("J/slots/m.json", {}, 14, ["replay J M", "prune J --keep 1d", "status J", "slot list J"]),
    ("J/slots/c.json", {}, 14, ["ship J C --slot c"]),
    ("C/slots/mc.json", {}, 14, ["replay C MC"]),
    ("C/copy.json", {}, 14, ["ship J C --slot c", "ship J C --slot c --replace-slot"]),
    ("C/received.json", {}, 14, ["ship J C --slot c"]),
    ("J/detached.json", {"segments": [0]}, 14, ["record J"]),
    ("J/promoting.json", {}, 14, ["record J", "replay J M", "promote M --yes"]),
    ("M/mirror.json", {}, 24, ["verify M", "export M d OUT", "replay J M", "status M", "promote M --yes"]),
    ("M/checkpoint.json", {}, 24, ["verify M", "export M d OUT", "replay J M", "status M", "promote M --yes"]),
]
HINTS = [
    ("J/seen.json", ["record J"]),
    ("M/seen.json", ["replay J M"]),
    ("M/last-replay.json", ["status M", "replay J M"]),
    ("M/receipts/*.json", ["status M", "verify M"]),
]
"""Of a later format these count as absent, as nothing depends on them, and are replaced."""


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """A journal with a mirror and a copy, and a mirror of that, all of which have something to catch up with."""
    with memory_directory() as path, pytest.MonkeyPatch.context() as patch:
        (path / "disk.img").write_bytes(bytes(range(256)) * 128)
        (path / "now").mkdir()
        patch.chdir(path / "now")
        lines = [
            "init J d=../disk.img", "record J", "base J", "replay J M --slot m", "verify M", "ship J C --slot c",
            "replay C MC --slot mc", "ship J C --slot c",
        ]  # fmt: skip
        assert [main(line.split()) for line in lines] == [0] * len(lines)
        with open(path / "disk.img", "r+b") as disk:
            disk.write(b"news" * 1024)
        assert main(["record", "J"]) == 0
        patch.chdir(path)
        shutil.move("now", "kept")
        yield path


@pytest.fixture
def place(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(built / "kept", built / "now")
    monkeypatch.chdir(built / "now")
    yield built / "now"
    monkeypatch.chdir(built)
    shutil.rmtree(built / "now")


def later_format(path: Path) -> int:
    return 1 + (MIRROR_FORMAT if path.name == "mirror.json" else FORMAT)


def make_later(path: Path, values: dict[str, object]) -> bytes:
    known = json.loads(path.read_text()) if path.exists() else values
    path.write_text(json.dumps({**known, "format": later_format(path), "needs": "9.8.7"}))
    return path.read_bytes()


@pytest.mark.parametrize(("name", "values", "code", "lines"), CASES, ids=[case[0] for case in CASES])
def test_a_small_file_of_a_later_format_is_refused_and_stays(
    place: Path, capsys: Capture, name: str, values: dict[str, object], code: int, lines: list[str]
) -> None:
    data = make_later(place / name, values)
    for line in lines:
        capsys.readouterr()
        ended = main(line.split())
        told = capsys.readouterr().err
        assert (line, ended) == (line, code), told
        assert name.split("/")[-1] in told and f"format {later_format(place / name)}" in told, (line, told)
        assert "use mirrortool 9.8.7 or a later one" in told, (line, told)
        assert (place / name).read_bytes() == data, line


@pytest.mark.parametrize(("name", "lines"), HINTS, ids=[name for name, _ in HINTS])
def test_a_hint_of_a_later_format_counts_as_absent(place: Path, name: str, lines: list[str]) -> None:
    make_later(next(place.glob(name), place / name), {"boot_id": "x"})
    assert [main(line.split()) for line in lines] == [0] * len(lines)


LOADED = {
    "journal/copies/directory.py": "copy.json",
    "journal/directory.py": "journal.json local.json recorder.json",
    "journal/durablemark.py": "received.json",
    "journal/pathkind.py": "mirror.json",
    "journal/slots.py": "slots/m.json",
    "journal/unfinished.py": "promoting.json",
    "mirror/directory.py": "mirror.json checkpoint.json",
    "mirror/findings.py": "",
    "mirror/lastreplay.py": "last-replay.json",
    "mirror/lastseen.py": "seen.json",
    "mirror/receipts.py": "receipts/*.json",
    "mirror/volumeregistry.py": "",
    "record/missingsegments.py": "detached.json",
}
"""The small files that each module reads; a finding that is not known is told as one that cannot be read, and what the
registry has is in test_volumelabels.py."""


def test_every_small_file_is_in_one_of_the_tables() -> None:
    package = Path(mirrortool.__file__).parent
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if "jsonfile.load(" in path.read_text()}
    assert modules == set(LOADED)
    tables = {name.split("/", 1)[1] for name in [*(case[0] for case in CASES), *(name for name, _ in HINTS)]}
    assert {name for names in LOADED.values() for name in names.split()} <= tables
