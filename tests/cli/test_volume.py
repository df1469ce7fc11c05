"""Volumes are listed and resized; `volume set` is where the error of one that is gone leads; paths are bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.journal.directory import Journal
from tests.fakes.loop import require_tools
from tests.fakes.volumes import make_old

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """In a directory with a journal J of a.img and b.img."""
    monkeypatch.chdir(tmp_path)

    def call(line: str, expected: int = 0) -> str:
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expected, (line, code, err)
        assert len([each for each in err.splitlines() if each.startswith("mirrortool:")]) == bool(expected), err
        return out + err

    for name in ("a", "b"):
        Path(f"{name}.img").write_bytes(name.encode() * 8192)
        make_old(f"{name}.img")
    call("init J a=a.img b=b.img")
    call("record J")
    return call


def test_the_error_of_a_volume_that_was_moved_names_the_command_that_finds_it_again(run: Run) -> None:
    os.mkdir("moved")
    os.rename("a.img", "moved/a.img")
    for command in ("record J", "record J --nbd unix:s"):
        assert f"a.img: does not exist; mirrortool volume set {'J'} a=PATH says where it is now" in run(command, 20)
    told = run("volume set J a=moved/a.img")
    here = os.path.realpath(".")
    assert f"volume a is at {here}/moved/a.img, was at {here}/a.img" in told and "next: mirrortool record J" in told
    assert ", 0 zeroed, 0 B journaled" in run("record J")
    assert f"{here}/moved/a.img" in run("status J")


def test_volumes_that_were_moved_together_are_set_one_by_one(run: Run) -> None:
    for name in ("a", "b"):
        os.rename(f"{name}.img", f"{name}-moved.img")
    run("volume set J a=a-moved.img")
    assert "b.img: does not exist" in run("record J", 20)
    run("volume set J b=b-moved.img -q")
    run("record J")


def test_one_that_is_another_file_is_found_out_by_record(run: Run) -> None:
    shutil.copy("a.img", "copy.img")
    os.unlink("a.img")
    run("volume set J a=copy.img")
    assert "--scan" in run("record J", 21)
    run("record J --scan")


def test_a_source_that_is_missing_is_no_volume_that_was_moved(run: Run) -> None:
    assert "volume set" not in run("record J --source a=gone.img", 20)


def test_a_volume_without_a_path_is_given_one(run: Run) -> None:
    journal = Journal("J")
    journal.save_volume_paths({"b": journal.volume_paths()["b"]})
    assert "no path is known for volume a; mirrortool volume set" in run("record J", 20)
    assert "was at" not in run("volume set J a=a.img")
    run("record J")


@pytest.mark.parametrize(
    ("code", "line", "phrase"),
    [
        (2, "volume set J c=a.img", "its volumes: a, b"),
        (2, "volume set J a=a.img a=b.img", "named twice"),
        (2, "volume set J a", "NAME=PATH"),
        (2, "volume set J", "NAME=PATH"),
        (14, "volume set gone a=a.img", "does not exist"),
        (14, "volume set copy a=a.img", "this is a copy"),
        (20, "volume set J a=gone.img", "does not exist; check the path"),
        (20, "volume set J a=b.img", "one and the same"),
        (20, "volume set J a=J", "is a directory"),
        (20, "volume set J a=J/journal.json", "lies inside the journal"),
    ],
)
def test_refused(run: Run, code: int, line: str, phrase: str) -> None:
    run("ship J copy -q")
    before = Path("J/local.json").read_bytes()
    assert phrase in run(line, code)
    assert Path("J/local.json").read_bytes() == before


def test_a_journal_that_is_being_recorded_is_left_alone(run: Run) -> None:
    with Journal("J").lock():
        run("volume set J a=b.img", 22)


def test_volumes_are_listed_with_sizes_addresses_and_places(run: Run) -> None:
    run("replay J M -q")
    run("ship J copy -q")
    here = os.path.realpath(".")
    for path, kind, place in [("J", "path", f"{here}/a.img"), ("M", "image", f"{here}/M/volumes/a.img")]:
        lines = run(f"volume list {path}").splitlines()
        assert lines[0].split() == ["name", "size", "address", "kind", "path"]
        assert lines[1].split() == ["a", "8.0", "KiB", "0x0000000000000000", kind, place]
        assert lines[2].split()[:4] == ["b", "8.0", "KiB", "0x0001000000000000"]
        assert lines[3:] == ["pages of 4.0 KiB"]
    assert run("volume list copy").splitlines()[1].split() == ["a", "8.0", "KiB", "0x0000000000000000", "-", "-"]
    assert "not a journal or a mirror" in run("volume list .", 14)


def test_a_resize_says_what_is_to_be_done_outside(run: Run) -> None:
    told = run("volume resize J a 1M")
    assert "volume a has 1.0 MiB now, had 8.0 KiB; committed at LSN" in told
    assert "next: mirrortool record J; NBD clients must connect again to see the new size" in told
    assert "a mirror's device must have that size" in told
    assert "0 pages written" in run("record J")
    assert "a  1.0 MiB" in run("status J").replace(":", " ")
    assert "already; nothing was changed" in run("volume resize J a 1M")
    told = run("volume resize J a 4K --shrink")
    assert "had 1.0 MiB" in told and "a mirror's device" not in told
    run("replay J M -q")
    assert os.path.getsize("M/volumes/a.img") == 4096


@pytest.mark.parametrize(
    ("code", "line", "phrase"),
    [
        (2, "volume resize J c 1M", "its volumes: a, b"),
        (2, "volume resize J a much", "not a size"),
        (2, "volume resize J a 4K", "give --shrink"),
        (14, "volume resize copy a 1M", "this is a copy"),
        (20, "volume resize J a 1E", "into the addresses of the next one"),
    ],
)
def test_a_resize_is_refused(run: Run, code: int, line: str, phrase: str) -> None:
    run("ship J copy -q")
    assert phrase in run(line, code)
    assert os.path.getsize("a.img") == 8192
    assert "0 pages written" in run("record J")


def without_utf8(_: Path) -> dict[str, str]:
    """An environment in which paths are ASCII, and other bytes escaped."""
    return {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


def with_latin1(tmp_path: Path) -> dict[str, str]:
    require_tools("localedef")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", tmp_path / "de_DE.ISO-8859-1"], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip("this machine has no locales to make one of")
    return {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.mark.parametrize("other", [without_utf8, with_latin1])
def test_what_was_recorded_under_one_locale_is_found_under_another(
    tmp_path: Path, other: Callable[[Path], dict[str, str]]
) -> None:
    """A path of UTF-8, and one that is none, both ways."""
    (tmp_path / "locales").mkdir()
    environments = [{"LC_ALL": "C.UTF-8"}, other(tmp_path / "locales")]
    place = tmp_path / "é"
    place.mkdir()

    def mirrortool(environment: dict[str, str], *arguments: str) -> str:
        command = [sys.executable, "-m", "mirrortool", *arguments]
        done = subprocess.run(command, cwd=place, env={"PATH": os.environ["PATH"], **environment}, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("utf-8", "replace")

    kept = []
    for number, (here, there) in enumerate((environments, environments[::-1])):
        journal, mirror = f"J{number}", f"M{number}"
        mirrortool(here, "init", journal, "a=ü.img:64K", "b=" + os.fsdecode(b"\xff.img") + ":64K")
        mirrortool(there, "record", journal)
        mirrortool(here, "replay", journal, mirror)
        mirrortool(there, "replay", journal, mirror)
        mirrortool(there, "ship", journal, f"copy{number}")
        assert "up to date" in mirrortool(here, "status", journal)
        kept.append(Path(place, journal, "local.json").read_bytes())
        for name in ("ü.img", os.fsdecode(b"\xff.img")):
            os.unlink(place / name)
    assert kept[0] == kept[1]
