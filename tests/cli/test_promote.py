"""`promote` as a person meets it: it says what it will do, asks, and is completed by the next call if it was killed."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirrortool.cli.main import main
from mirrortool.journal import setaside
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.unfinished import load_note
from mirrortool.mirror.directory import Mirror
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fast_directory, inside_fast_directory, make_old, pattern
from tests.interop.tool import Site

Capture = pytest.CaptureFixture[str]
PAGES = 40


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A received copy of a journal with two commits, and a mirror at the first."""
    with inside_fast_directory() as directory:
        Path("disk.img").write_bytes(pattern(1, PAGES * 4096))
        assert main(["init", "primary", "disk=disk.img"]) == 0
        assert main(["record", "primary"]) == main(["mark", "primary", "first"]) == 0
        Path("disk.img").write_bytes(pattern(2, PAGES * 4096))
        make_old("disk.img")
        assert main(["record", "primary"]) == 0
        os.mkdir("J")
        shutil.copy("primary/journal.json", "J")
        shutil.copytree("primary/files", "J/files")
        assert main(["replay", "J", "M", "--until", "first", "-q"]) == 0
        yield Path(directory)


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, which is the current directory."""
    with fast_directory() as directory:
        shutil.copytree(made, directory, dirs_exist_ok=True)
        monkeypatch.chdir(directory)
        assert main(["replay", "J", "M", "--until", "first", "-q"]) == 0  # so that the mirror finds its journal here
        yield Path(directory)


def state(path: Path) -> dict[str, bytes]:
    return {str(each): each.read_bytes() for each in path.rglob("*") if each.is_file() and each.name != "lock"}


def run(capsys: Capture, *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["promote", *arguments]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


@pytest.mark.parametrize("options", [["--dry-run"], ["--dry-run", "--json"], ["--dry-run", "-q"]])
def test_a_dry_run_changes_nothing(here: Path, capsys: Capture, options: list[str]) -> None:
    before = state(here)
    out, err = run(capsys, "M", *options)
    assert state(here) == before
    if "--json" in options:
        told: dict[str, Any] = json.loads(out)
        assert (told["is_complete"], told["lsn"], told["epoch"], told["verified"]) == (False, 5, None, None)
        assert (told["commit"]["operations_to_replay"], told["commit"]["bytes_dropped"], err) == (2, 0, "")
    else:
        assert (
            "becomes the primary at the commit of LSN 5 (scan)" in err
            and "2 operations of the journal will be replayed" in err
        )
        assert "make sure that the old primary has stopped" in err
        assert out == "nothing was changed\n"


def test_without_a_terminal_it_must_be_told_yes(here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(here)
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    _, err = run(capsys, "M", code=2)
    assert "give --yes" in err
    assert state(here) == before


def at_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """Its exit code and what a terminal shows, where a person answers."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mirrortool", "promote", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer.encode())
    seen = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # nobody has the terminal any more
            break
    os.close(ours)
    return process.wait(60), seen.decode()


def test_at_a_terminal_it_asks(here: Path) -> None:
    before = state(here)
    code, seen = at_terminal("n\n", "M")
    assert (code, "Promote? [y/N]" in seen, "not promoted; nothing was changed" in seen) == (130, True, True)
    assert state(here) == before
    code, seen = at_terminal("y\n", "M")
    assert (code, "M is the primary of epoch 1, which begins after LSN 5" in seen) == (0, True)
    assert f"next: mirrortool record {here}/J --nbd unix:SOCKET" in seen
    assert Path("M/volumes/disk.img").read_bytes() == pattern(2, PAGES * 4096)


def test_afterwards_everything_says_so(here: Path, capsys: Capture) -> None:
    out, _ = run(capsys, "M", "--yes", "--json")
    assert {"is_complete": True, "epoch": 1, "verified": True}.items() <= json.loads(out).items()
    again, err = run(capsys, "M", "--json", "-q")
    assert {"is_complete": True, "commit": None, "verified": None}.items() <= json.loads(again).items()
    assert err == ""
    for command in (["replay", "J", "M"], ["replay", "primary", "M"], ["verify", "M"]):
        assert main([*command, "-q"]) == 26
        assert "the mirror was promoted" in capsys.readouterr().err
    assert main(["status", "M", "J"]) == 0
    assert f"to the primary of epoch 1, recorded in {here}/J" in capsys.readouterr().out
    assert main(["replay", "J", "M2", "-q"]) == main(["verify", "M2", "-q"]) == 0
    assert main(["replay", "primary", "M2", "-q"]) == 13


def test_a_bad_page_is_no_primarys(here: Path, capsys: Capture) -> None:
    assert main(["replay", "J", "M", "-q"]) == 0
    with open("M/volumes/disk.img", "r+b") as file:
        file.write(b"rot")
    before = state(here / "J")
    for options, told in (
        ([], "is not as the last replay left it"),
        (["--no-verify"], "the file was written since the last replay"),  # which an attempt before does not hide
    ):
        _, err = run(capsys, "M", "--yes", *options, code=21)
        assert told in err
        assert state(here / "J") == before


@pytest.mark.usefixtures("here")
def test_that_nothing_was_verified_is_said(capsys: Capture) -> None:
    out, err = run(capsys, "M", "--yes", "--no-verify", "--json")
    assert "WARNING: the mirror was not verified" in err
    assert json.loads(out)["verified"] is False


@pytest.mark.parametrize(
    ("code", "arguments", "named"),
    [
        (24, ["J", "--yes"], "is a journal, not a mirror"),
        (14, ["M", "--journal", "M", "--yes"], "is a mirror, not a journal"),
        (2, ["M", "--until", "nothing", "--yes"], "no mark nothing"),
        (2, ["M", "--until", "1970-01-02", "--yes"], "no commit at or before"),
        (2, ["M", "--until", "?"], "neither an LSN"),
        (2, [], "Missing argument"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    here: Path, capsys: Capture, code: int, arguments: list[str], named: str
) -> None:
    before = state(here)
    _, err = run(capsys, *arguments, code=code)
    assert named in err and len(err.strip().splitlines()) == 1
    assert state(here) == before


@pytest.mark.usefixtures("here")
def test_interrupted_it_says_that_it_must_be_run_again(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setaside.files, "copy_range", interrupted)
        _, err = run(capsys, "M", "--yes", "-q", code=130)
    assert "run mirrortool promote again, which completes it" in err
    assert load_note("J") is not None
    assert run(capsys, "M", "-q")[0] == "M is the primary of epoch 1, which begins after LSN 5\n"


# Killed at any call that changes something, as a process: what the next one finds is all that is left.

_KILLED = """
import os, signal, sys
from mirrortool import files, openfile
from mirrortool.cli.main import main

class Os:
    left = int(sys.argv[1])
    def __getattr__(self, name):
        return self.counted(name) if name in ("pwrite", "pwritev", "ftruncate", "rename", "unlink", "mkdir") \\
            else getattr(os, name)
    def counted(self, name):
        def call(*arguments):
            Os.left -= 1
            if Os.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return getattr(os, name)(*arguments)
        return call

files.os = openfile.os = Os()
sys.exit(main(["promote", "M", "--yes", "--no-verify", "-q"]))
"""


@pytest.mark.parametrize("calls", [12, 16, 18, 20, 24, 28])
def test_killed_it_is_completed_by_the_next_call(here: Path, capsys: Capture, calls: int) -> None:
    assert main(["replay", "J", "M", "-q"]) == 0
    done = subprocess.run([sys.executable, "-c", _KILLED, str(calls)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    is_begun = load_note("J") is not None
    if is_begun:
        for command in (["record", "J"], ["replay", "J", "new"], ["log", "J"], ["status", "J"]):
            assert main(command) == 16
            assert f"mirrortool promote {here}/M completes it" in capsys.readouterr().err
    if is_begun and Mirror("M").promoted:
        _, err = run(capsys, "M")  # it was confirmed before
        assert "completing the promotion that was begun on" in err
    else:
        run(capsys, "M", "--yes", "-q")
    assert main(["record", "J", "-q"]) == main(["replay", "J", "new", "-q"]) == main(["verify", "new", "-q"]) == 0
    assert Path("new/volumes/disk.img").read_bytes() == pattern(2, PAGES * 4096)


# With a recorder that is a process.


def test_a_running_recorder_is_to_be_stopped_and_the_promoted_volume_is_served(here: Path) -> None:
    site = Site(here)
    site.journal, site.mirror = here / "primary", here / "M2"
    site.run("replay", site.journal, site.mirror, "--quiet")
    with LiveRecorder(site.journal) as live:
        live.wait_for_base()
        before = state(site.mirror)
        site.run("promote", site.mirror, "--yes", code=22)
        assert state(site.mirror) == before
    site.run("replay", site.journal, site.mirror, "--quiet")
    site.run("promote", site.mirror, "--yes")
    with LiveRecorder(site.journal) as live:
        assert live.lines[0].endswith(str(live.address)) or any("serving volume disk" in line for line in live.lines)
    assert Journal(str(site.journal)).volume_paths() == {"disk": str(site.mirror / "volumes/disk.img")}
    site.mirror = here / "third"
    site.prove()
    newest = list(commits(Journal(str(site.journal))))[-1]
    assert newest.lsn > Journal(str(site.journal)).history.current.start.lsn


# there and back


@pytest.mark.usefixtures("here")
def test_the_volume_of_a_promoted_mirror_can_be_failed_back_to(capsys: Capture) -> None:
    assert main(["promote", "M", "--yes"]) == 0
    assert main(["ship", "J", "back"]) == main(["replay", "back", "M2", "-q"]) == 0
    assert main(["promote", "M2", "--yes"]) == main(["ship", "back", "again"]) == 0
    image = "M/volumes/disk.img"
    for within in ("checkpoint.json", "lock", "volumes/other.img"):
        assert main(["replay", "again", "M3", "--volume", f"disk=M/{within}", "--overwrite"]) == 20
    assert main(["replay", "again", "M3", "--volume", f"disk={image}"]) == 20
    capsys.readouterr()
    assert main(["replay", "again", "M3", "--volume", f"disk={image}", "--overwrite"]) == 0
    assert main(["verify", "M3"]) == 0
    whole = Path(image).read_bytes()
    assert main(["record", "J"]) == main(["replay", "again", "M4", "--volume", f"disk={image}", "--overwrite"]) == 20
    assert Path(image).read_bytes() == whole
    assert main(["promote", "M3", "--yes"]) == main(["record", "again"]) == 0
    assert Path(image).read_bytes() == Path("M2/volumes/disk.img").read_bytes()


def test_what_was_promoted_though_bad_is_recorded_with_a_scan_at_first(here: Path, capsys: Capture) -> None:
    assert main(["replay", "J", "M", "-q"]) == 0
    with open("M/volumes/disk.img", "r+b") as image:
        image.write(b"bad")
    assert main(["verify", "M"]) == 1
    capsys.readouterr()
    assert main(["promote", "M", "--yes", "--force-known-bad"]) == 0
    assert f"next: mirrortool record {here}/J --scan --nbd unix:SOCKET\n" in capsys.readouterr().err
    assert main(["record", "J", "--scan"]) == 0
    assert main(["replay", "J", "M2"]) == main(["verify", "M2"]) == 0
    assert Path("M2/volumes/disk.img").read_bytes()[:3] == b"bad"
