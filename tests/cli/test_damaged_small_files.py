"""Each small file damaged in turn: commands continue without it, or say what mends it; and that does."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.journals import memory_directory

Capture = pytest.CaptureFixture[str]

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda data: data[:20],
    "zeros": lambda data: bytes(len(data)),
    "another": lambda _: b"[]",
    "no field": lambda _: b"{}",
}

READING = [
    "log J", "slot list J", "verify J", "replay J NEW --no-slot", "log C", "verify C", "replay C NEW --no-slot",
    "verify M",
]  # fmt: skip
ALL = [
    *READING, "status J", "status M", "status C", "record J", "mark J x", "replay J M", "replay J M2",
    "ship J C --slot c", "replay C MC", "base J", "prune J --keep 1d", "slot drop J c",
    "promote M --yes", "promote M2 --dry-run",
]  # fmt: skip

# What is damaged, the exit code of the commands that do not continue, which these are, and the remedy, which is run.
CASES: list[tuple[str, int, list[str], str, list[str]]] = [
    ("J/slots/m.json", 14, ["status J", "prune J --keep 1d"], "the next replay or ship", ["replay J M"]),
    ("J/slots/m.json", 14, ["status J", "prune J --keep 1d"], "mirrortool slot drop J m", ["slot drop J m"]),
    ("J/slots/c.json", 14, ["status J", "prune J --keep 1d"], "the next replay or ship", ["ship J C --slot c"]),
    ("J/slots/c.mc.json", 14, ["status J", "prune J --keep 1d"], "the next replay or ship", ["ship J C --slot c"]),
    ("C/slots/mc.json", 14, ["status C"], "the next replay or ship", ["replay C MC"]),
    ("J/recorder.json", 14, ["record J", "mark J x", "prune J --keep 1d"], "mirrortool record --scan J",
     ["record --scan J"]),
    ("J/local.json", 14, ["record J", "replay J NEW --no-slot", "status J"], "mirrortool volume set J NAME=PATH",
     ["volume set J d=../disk.img"]),
    ("J/seen.json", 0, [], "", []),
    ("J/journal.json", 14, [each for each in ALL if " J" in each or each.startswith("promote")],
     "put that of a copy of the journal", ["cp C/journal.json J/journal.json"]),
    ("C/journal.json", 14, ["log C", "verify C", "replay C NEW --no-slot", "status C", "replay C MC"],
     "the next mirrortool ship to this copy", ["ship J C --slot c"]),
    ("C/copy.json", 2, ["ship J C --slot c"], "--replace-slot", ["ship J C --slot c --replace-slot"]),
    ("C/received.json", 0, [], "", []),
    ("J/bases/*.base", 11, ["verify J", "replay J NEW --no-slot", "base J", "prune J --keep 1d"], "take it away",
     ["rm -r J/bases", "base J"]),
    ("M/mirror.json", 24, ["verify M", "status M", "replay J M", "promote M --yes"],
     "remove the mirror's directory", ["rm -r M", "replay J M --replace-slot"]),
    ("M/checkpoint.json", 24, ["verify M", "status M", "replay J M", "promote M --yes"],
     "remove the mirror's directory", ["rm -r M", "replay J M --replace-slot"]),
    ("M/last-replay.json", 0, [], "", []),
    ("M/receipts/*.json", 0, [], "", []),
]  # fmt: skip


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """A journal with two mirrors and a copy, and a mirror of that, all of which have something to catch up with."""
    with memory_directory() as path, pytest.MonkeyPatch.context() as patch:
        (path / "disk.img").write_bytes(bytes(range(256)) * 128)
        (path / "now").mkdir()
        patch.chdir(path / "now")
        lines = [
            "init J d=../disk.img", "record J", "base J", "replay J M --slot m", "verify M", "replay J M2 --slot n",
            "ship J C --slot c", "replay C MC --slot mc", "ship J C --slot c", "replay J M",
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
    """Everything where it was when it was built, as the current directory; the volume is beside it, and stays."""
    before = (built / "disk.img").read_bytes()
    anew(built)
    monkeypatch.chdir(built / "now")
    yield built / "now"
    monkeypatch.chdir(built)
    shutil.rmtree(built / "now")
    assert (built / "disk.img").read_bytes() == before


def anew(built: Path) -> None:
    shutil.rmtree(built / "now", ignore_errors=True)
    shutil.copytree(built / "kept", built / "now")


def damage(place: Path, name: str, how: str) -> None:
    path = next(place.glob(name), place / name)  # seen.json is there only while volumes are held, or were
    path.write_bytes(DAMAGE[how](path.read_bytes() if path.exists() else b'{"boot_id": "x"}'))


def run(line: str, capsys: Capture) -> tuple[int, str]:
    """A command of ours, or one of the shell's that a remedy names; its exit code, and what it told."""
    words = shlex.split(line)
    if words[0] in ("cp", "rm"):
        shutil.copy(*words[1:]) if words[0] == "cp" else shutil.rmtree(words[-1])
        return 0, ""
    capsys.readouterr()
    code = main(words)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, err


def test_every_command_ends_well_where_nothing_is_damaged(built: Path, place: Path, capsys: Capture) -> None:
    for line in ALL:
        assert run(line, capsys)[0] == 0, line
        for each in place.iterdir():
            shutil.rmtree(each)
        for each in (built / "kept").iterdir():
            shutil.copytree(each, place / each.name)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(("name", "code", "stopped", "remedy", "mending"), CASES)
def test_a_damaged_small_file_stops_few_and_has_a_remedy_that_works(
    place: Path,
    capsys: Capture,
    how: str,
    name: str,
    code: int,
    stopped: Sequence[str],
    remedy: str,
    mending: Sequence[str],
) -> None:
    damage(place, name, how)
    for line in READING:
        shutil.rmtree("NEW", ignore_errors=True)
        found, err = run(line, capsys)
        assert found == (code if line in stopped else 0), (line, err)
        assert remedy in err or line not in stopped, (line, err)
    for line in [each for each in stopped if each not in READING]:
        found, err = run(line, capsys)
        (told,) = [each for each in err.splitlines() if each.startswith("mirrortool: ")]
        assert found == code and remedy in told, (line, found, err)
    for line in mending:
        assert run(line, capsys)[0] == 0, line
    shutil.rmtree("NEW", ignore_errors=True)
    # It is mended however it was damaged: all of that is tried once.
    for line in ALL if how == "cut" else ["replay J M", *stopped]:
        if line == "slot drop J c":
            continue
        found, err = run(line, capsys)
        assert found == 0 or (line.startswith("promote M2") and found == 26), (line, found, err)
        if "NEW" in line:
            shutil.rmtree("NEW")
    assert Path("M/volumes/d.img").read_bytes() == Path("../disk.img").read_bytes()


def test_a_damaged_slot_is_listed_and_dropped(place: Path, capsys: Capture) -> None:
    damage(place, "J/slots/m.json", "cut")
    capsys.readouterr()
    assert main(["slot", "list", "J", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["damaged"] == ["m"] and {each["name"] for each in listed["slots"]} == {"n", "c", "c.mc"}
    assert main(["slot", "list", "J"]) == 0
    printed = capsys.readouterr()
    assert "n  " in printed.out and "mirrortool slot drop J m forgets it" in printed.err
    assert main(["slot", "drop", "J", "m"]) == 0
    assert capsys.readouterr().out == "dropped slot m, whose file was not valid: what it held back is not known\n"
    assert main(["slot", "drop", "J", "m"]) == 2
    assert main(["status", "J"]) == 0
