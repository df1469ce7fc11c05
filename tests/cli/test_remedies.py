"""Remedies are right: what a message says to do helps, and the command that it prints can be run as it stands."""

from __future__ import annotations

import ast
import dataclasses
import errno
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mirrortool
from mirrortool import files
from mirrortool.cli import replay
from mirrortool.cli.main import main
from mirrortool.cli.ship import Outages
from mirrortool.errors import AccessError, NoSpaceError
from mirrortool.files import open_file
from mirrortool.mirror.directory import Mirror
from mirrortool.ship.shipprogress import ShipProgress
from tests.fakes.volumes import make_old

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a volume that is named as an option would be."""
    monkeypatch.chdir(tmp_path)
    Path("-disk.img").write_bytes(bytes(range(256)) * 64)
    make_old("-disk.img")
    return tmp_path


def next_step(capsys: Capture) -> list[str]:
    """The words of the command that the last line on standard error names, without `mirrortool`."""
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("next: mirrortool "), line
    return shlex.split(line.removeprefix("next: mirrortool "))


@pytest.mark.usefixtures("place")
def test_the_next_step_can_be_run_whatever_the_names(capsys: Capture) -> None:
    assert main(["init", "--", "-J o", "disk=-disk.img"]) == 0
    assert main(next_step(capsys)) == 0
    words = next_step(capsys)
    assert main([*words[:-1], "./-M"]) == 0
    assert main(next_step(capsys)) == 0


def texts() -> Iterator[tuple[str, str]]:
    """Where a text of the program is, and the text: what stands in for a value is in braces."""
    for path in sorted(Path(mirrortool.__path__[0]).rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner = {id(each) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for each in node.values}
        for node in ast.walk(tree):
            is_plain = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner
            if isinstance(node, ast.JoinedStr) or is_plain:
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(
                    str(ast.literal_eval(p)) if isinstance(p, ast.Constant) else ast.unparse(p) for p in parts
                )
                yield f"{path.name}:{node.lineno}", text


def test_what_follows_next_is_a_command_and_nothing_else() -> None:
    found = [(where, text) for where, text in texts() if "next: mirrortool " in text]
    assert len(found) > 10
    for where, text in found:
        command = text.partition("next: ")[2]
        assert "," not in command, f"{where}: {text}"
        assert len(command.split()) > 2, f"{where} names no journal or mirror: {text}"


def test_paths_in_commands_are_quoted() -> None:
    bare = re.compile(r"mirrortool [a-z][^;,']*\{[^{}()]*[._](path|where)\}")
    found = [f"{where}: {text}" for where, text in texts() if bare.search(text)]
    assert not found


@pytest.fixture
def no_directory(tmp_path: Path) -> Iterator[None]:
    """The working directory was removed."""
    before = os.getcwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    yield
    os.chdir(before)


@pytest.mark.usefixtures("no_directory")
@pytest.mark.parametrize("line", ["init J d=x.img:1M", "ship J C", "replay J M", "status J"])
def test_a_working_directory_that_was_removed_is_named(line: str, capsys: Capture) -> None:
    assert main(line.split()) in (14, 32)
    err = capsys.readouterr().err
    assert "the working directory was removed" in err or "J: does not exist" in err
    assert "standard output" not in err


def test_no_inodes_is_not_no_space(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "nr_inodes=3,size=1M", "none", str(place)]
    if subprocess.run(options, capture_output=True).returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        first, second = (open_file(str(place / name), write=True, create=True) for name in "ab")
        with first, second:
            with pytest.raises(NoSpaceError, match="no inodes left") as refused:
                open_file(str(place / "c"), write=True, create=True)
            assert "free some space" not in str(refused.value)
            with pytest.raises(NoSpaceError, match="free some space"):
                first.pwrite(bytes(2 << 20), 0)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_cannot_resize_may_hold_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some in user space (FUSE): a file that has its size needs no resizing."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "ftruncate", refuse)
    (tmp_path / "file").write_bytes(bytes(10))
    with open_file(str(tmp_path / "file"), write=True) as file:
        file.truncate(10)
        with pytest.raises(files.HostError):
            file.truncate(11)


def test_a_journal_where_sockets_cannot_be(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Such as vfat: it is not a matter of permissions."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"bind": refuse}))
    assert main(["init", "J", "disk=./-disk.img"]) == main(["record", "J"]) == 0
    capsys.readouterr()
    assert main(["record", "J", "--nbd", f"unix:{place}/s"]) == AccessError.exit_code
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot make a socket in this file system; use a file system that has Unix sockets" in line


def test_a_file_larger_than_allowed_names_the_limit(place: Path) -> None:
    """RLIMIT_FSIZE: not only a file system refuses large files."""
    main(["init", "-q", "J", "disk=./-disk.img"])
    os.truncate("-disk.img", 1 << 20)
    main(["record", "-q", "J"])
    script = f"ulimit -f 100; exec {shlex.quote(sys.executable)} -m mirrortool replay -q J M"
    done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 30
    assert "raise the limit of file sizes (ulimit -f)" in done.stderr


def test_a_shipment_into_a_full_file_says_so(place: Path) -> None:
    main(["init", "-q", "J", "disk=./-disk.img"])
    main(["record", "-q", "J"])
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "mirrortool", "ship", "J", "-"]
        done = subprocess.run(command, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 30
    assert last.startswith("mirrortool: standard output: cannot send: No space left on device; free some space")
    assert "LSN 0" not in done.stderr


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("destination", ["full", "./nothing/C"])
def test_a_copy_that_refuses_is_named_once(destination: str, capsys: Capture) -> None:
    main(["init", "-q", "J", "disk=./-disk.img"])
    main(["record", "-q", "J"])
    os.mkdir("full")
    Path("full/x").write_bytes(b"x")
    capsys.readouterr()
    assert main(["ship", "J", destination]) == 32
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].count(destination) == 1
    assert "is there" not in captured.out or "nothing is there" in captured.out


def test_an_outage_names_its_destination_once() -> None:
    told: list[str] = []
    outages = Outages(told.append, follow=True)
    for problem in ("far:J: the other side ended", "the copy far:J: no room", "the journal is gone"):
        progress = ShipProgress("far:J")
        progress.state, progress.problem = "away", problem
        outages.look(progress.statistics())
    assert [line.count("far:J") for line in told] == [1, 1, 1]


@pytest.mark.usefixtures("place")
def test_a_stopped_replay_says_once_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    main(["init", "-q", "J", "disk=./-disk.img"])
    main(["record", "-q", "J"])
    capsys.readouterr()
    monkeypatch.setattr(replay, "_run", lambda *_, **__: signal.SIGINT)
    assert main(["replay", "J", "M"]) == 130
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "mirrortool: stopped; the next replay resumes from there"
    assert captured.out.count("the mirror is") == 1


@pytest.mark.usefixtures("place")
def test_a_follower_that_stopped_between_two_commits_names_replay() -> None:
    main(["init", "-q", "J", "disk=./-disk.img"])
    main(["record", "-q", "J"])
    main(["replay", "-q", "J", "M"])
    checkpoint = Mirror("M").checkpoint
    assert replay._next_step("J", "M", checkpoint) == "next: mirrortool verify M"
    between = dataclasses.replace(checkpoint, is_commit=False)
    assert replay._next_step("J", "M", between).endswith("; next: mirrortool replay J M")
