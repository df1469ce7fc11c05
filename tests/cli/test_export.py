"""`export` as a person meets it: a file of any commit, one line for what is refused, and nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.operation import CommitKind
from tests.fakes.daemon import PROGRAM, SLOW_DISK
from tests.fakes.journals import PAGE, Commit, Write, make_journal, replay_all
from tests.fakes.volumes import inside_fast_directory
from tests.fakes.waiting import wait_until

PAGES = 64
SIZE = PAGES * PAGE - 7
OLD = b"o" * SIZE
NEW = bytes(5 * PAGE) + b"n" * 3 * PAGE + OLD[8 * PAGE :]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here() -> Iterator[Path]:
    """The current directory: a journal with a mirror, and one with a commit that is fuzzy."""
    with inside_fast_directory() as directory:
        changed = b"\0" * 5 * PAGE + b"n" * 3 * PAGE
        frames = [[Write("disk", 0, OLD + bytes(7)), Commit("old")], [Write("disk", 0, changed), Commit()]]
        replay_all(make_journal("J", {"disk": SIZE}, frames), "M")
        make_journal("fuzzy", {"disk": SIZE}, [[Write("disk", 0, b"f" * PAGE), Commit(kind=CommitKind.FUZZY)]])
        yield Path(directory)


@pytest.mark.parametrize(("source", "content"), [(("J", "--until", "old"), OLD), (("J",), NEW), (("M",), NEW)])
@pytest.mark.usefixtures("here")
def test_the_file_is_the_commit(source: tuple[str, ...], content: bytes, capsys: Capture) -> None:
    path, *options = source
    assert main(["export", path, "disk", "out", "--json", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path("out").read_bytes() == content
    assert told["size"] == SIZE and told["data_bytes"] == (SIZE if content == OLD else SIZE - 5 * PAGE)
    assert (told["path"], told["file"], told["mark"]) == (path, "out", "old" if options else None)
    piped = subprocess.run([*PROGRAM, "export", path, "disk", "-", *options], capture_output=True, check=True)
    assert piped.stdout == content
    assert b"as of LSN " in piped.stderr


REFUSED = [
    (2, "export J nothing out", "its volumes are disk"),
    (2, "export J disk out --until nowhere", "no mark nowhere"),
    (2, "export M disk out --until old", "name its journal"),
    (2, "export J disk - --overwrite", "standard output"),
    (14, "export missing disk out", "does not exist"),
    (20, "export J disk there", "--overwrite"),
    (25, "export fuzzy disk out", "--allow-fuzzy"),
    (32, "export J disk missing/out", "check the path"),
    (32, "export J disk M/volumes/disk.img --overwrite", "lies inside the mirror"),
    (32, "export J disk J/out", "lies inside the journal"),
]


@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED, ids=map(str, range(len(REFUSED))))
@pytest.mark.usefixtures("here")
def test_refused(code: int, line: str, phrase: str, capsys: Capture) -> None:
    Path("there").write_bytes(b"something")
    capsys.readouterr()
    before = sorted(os.listdir())
    assert main(line.split()) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("mirrortool: ") and phrase in told[0], told
    assert sorted(os.listdir()) == before and Path("there").read_bytes() == b"something"


@pytest.mark.usefixtures("here")
def test_a_fuzzy_commit_is_exported_with_a_warning(capsys: Capture) -> None:
    assert main(["export", "fuzzy", "disk", "out", "--allow-fuzzy"]) == 0
    assert "FUZZY" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_the_primarys_own_volume_is_never_replaced(capsys: Capture) -> None:
    Path("disk.img").write_bytes(b"d" * 4096)
    assert main(["init", "J2", "disk=disk.img", "-q"]) == main(["record", "J2", "-q"]) == 0
    assert main(["replay", "J2", "M2", "-q"]) == 0
    for path in ("J2", "M2"):
        assert main(["export", path, "disk", "disk.img", "--overwrite"]) == 20
        assert "the primary's own volume" in capsys.readouterr().err
    assert Path("disk.img").read_bytes() == b"d" * 4096


@pytest.mark.usefixtures("here")
def test_stopped_it_leaves_no_file() -> None:
    Path("large.img").write_bytes(os.urandom(8 << 20))
    assert main(["init", "large", "disk=large.img", "-q"]) == main(["record", "large", "-q"]) == 0
    process = subprocess.Popen([*SLOW_DISK, "export", "large", "disk", "out"], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: process.poll() is not None or Path("out.mirrortool-part").exists())
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    if process.returncode:
        assert process.returncode == 128 + signal.SIGTERM and "no file was made" in told, told
        assert not [name for name in os.listdir() if name.startswith("out")]


@pytest.mark.usefixtures("here")
def test_a_reader_that_has_seen_enough_ends_it_silently() -> None:
    Path("large.img").write_bytes(os.urandom(4 << 20))
    assert main(["init", "large", "disk=large.img", "-q"]) == main(["record", "large", "-q"]) == 0
    script = f'{sys.executable} -m mirrortool export large disk - | head -c 10 >some; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("141", "")
