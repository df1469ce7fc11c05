"""A mirror on several disks, through the commands: one line for what is wrong, and the codes that the pages name."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.managebackings import DrainBacking
from tests.fakes.journals import assert_verifies
from tests.fakes.unitfiles import settings
from tests.fakes.volumes import make_old, pattern
from tests.fakes.waiting import wait_until

Run = Callable[..., str]
EXTENT = 64 << 10


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """In a directory with a journal J of disk.img, of which 10 extents have data, and a mirror M on three backings."""
    monkeypatch.chdir(tmp_path)

    def call(line: str, expected: int = 0) -> str:
        capsys.readouterr()
        code = main(line.split())
        out, err = capsys.readouterr()
        assert code == expected, (line, code, err)
        told = [each for each in err.splitlines() if each.startswith("mirrortool:") and "stopping" not in each]
        assert len(told) == bool(expected), err
        return out + err

    with open("disk.img", "wb") as file:
        file.truncate(40 * EXTENT)
        for number in range(10):
            file.seek(2 * number * EXTENT)
            file.write(pattern(number, 9000))
    make_old("disk.img")
    call("init J disk=disk.img")
    call("record J")
    call("replay J M --back b0:1M --back b1:640K --back b2:448K --extent 64K")
    return call


def test_a_mirror_says_what_it_lies_on(run: Run, tmp_path: Path) -> None:
    shown = run("status M")
    for number, size in enumerate(("1.0 MiB", "640.0 KiB", "448.0 KiB")):
        assert f": {size}  {tmp_path}/b{number}\n" in shown
    lines = run("backing list M").splitlines()
    assert lines[0].split() == ["uuid", "size", "used", "free", "state", "path"]
    assert [" ".join(line.split()[1:-1]) for line in lines[1:4]] == [
        "1.0 MiB 320.0 KiB 640.0 KiB in use", "640.0 KiB 192.0 KiB 384.0 KiB in use",
        "448.0 KiB 128.0 KiB 256.0 KiB in use",
    ]  # fmt: skip
    assert lines[4] == "extents of 64.0 KiB"
    listed = json.loads(run("backing list M --json"))
    assert [(each["used"] // EXTENT, each["free"] // EXTENT) for each in listed["backings"]] == [
        (5, 10),
        (3, 6),
        (2, 4),
    ]


def test_a_disk_is_replaced(run: Run, tmp_path: Path) -> None:
    assert "added backing" in run("backing add M new:2M")
    short = json.loads(run("backing list M --json"))["backings"][0]["uuid"][:8]
    assert f"moved 5 extents from backing {short}" in run(f"backing drain M {tmp_path}/b0")
    assert "drained" in run("backing list M") and "it is being drained" in run("status M")
    told = run(f"backing remove M {short}")
    assert f"removed backing {short}" in told and f"{tmp_path}/b0 is free to be used" in told
    os.remove("b0")
    run("replay J M")
    run("verify M")


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("backing add M none", 2, "needs a size"),
        ("backing add M b1 --overwrite", 2, "of this mirror already"),
        ("backing add M disk.img --overwrite --raw", 20, "the primary's own volume"),
        ("backing add M full:2M", 20, "the target holds data; give --overwrite"),
        ("backing add M tiny:9K", 20, "have no room for an extent of 64.0 KiB"),
        ("backing add J x:1M", 24, "a journal"),
        ("backing drain M ab", 2, "no backing has the path or uuid ab; mirrortool backing list M shows them"),
        ("backing remove M b0", 20, "5 extents lie on backing"),
        ("replay J M --extent 128K", 2, "--back"),
        ("replay J M --back b0 --extent 128K", 2, "cannot be changed"),
        ("replay J M --back full", 20, "is not a backing of this mirror; mirrortool backing add M full makes it one"),
        ("replay J new --back b0", 20, "belongs to the mirror"),
        ("replay J new --back x", 2, "needs a size"),
        ("replay J new --back x:1M --extent 100K", 2, "a power of two from 64.0 KiB to 16.0 MiB"),
        ("replay J new --back x:128K --extent 64K", 30, "the backings are full"),
        ("promote M --yes", 20, "lies on the mirror's backings"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_changes_nothing(run: Run, line: str, code: int, text: str) -> None:
    Path("full").write_bytes(b"data" * EXTENT)
    assert text in run(line, code)
    if "new" not in line:
        assert_verifies("M")


def test_where_the_others_have_no_room_nothing_is_moved(run: Run) -> None:
    run("replay J N --back x:450K --back y:900K --extent 64K")
    told = run("backing drain N y", 30)
    assert "the backings are full: 3 extents are free, " in told and "mirrortool backing add N PATH:SIZE" in told
    assert "draining" not in run("backing list N")


def test_a_drain_that_was_stopped_says_so_and_is_continued(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DrainBacking.run

    def stopped(draining: DrainBacking) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: draining._is_cancelled)
        return real(draining)

    with monkeypatch.context() as patch:
        patch.setattr(DrainBacking, "run", stopped)
        assert "stopped with 2 extents left; the same command continues" in run("backing drain M b2", 130)
    assert "draining" in run("backing list M")
    assert "moved 2 extents" in run("backing drain M b2")


def test_a_missing_backing_is_a_problem_of_status_and_verify_names_it(run: Run, tmp_path: Path) -> None:
    os.rename("b1", "away")
    assert f"{tmp_path}/b1: backing" in run("status M", 20)
    told = run("replay J M", 20)
    assert "is not there; put it back; if it is elsewhere: mirrortool replay" in told
    shown = run("backing list M")
    assert " missing " in shown and " -  " in shown
    main(["verify", "M"])
    run("replay J M --back away")
    run("verify M")
    assert f"{tmp_path}/away" in run("status M")
    assert json.loads(run("status M --json"))["backings"][1]["path"] == f"{tmp_path}/away"


def test_a_unit_may_write_where_backings_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "disks").mkdir()
    unit = settings(run("unit replay J M --follow"))
    assert f"-{tmp_path}" in unit["ReadWritePaths"]
    told = run("unit replay J new --follow --back disks/x:1M")
    assert f"--back {tmp_path}/disks/x:1M" in told
    assert Mirror("M").backings
