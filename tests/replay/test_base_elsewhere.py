"""A base in another file system: the way out where the journal's own is full to the last byte."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.cli.main import main
from mirrortool.errors import AccessError, MissingFileError, NoSpaceError
from mirrortool.journal.audit import Audit
from mirrortool.journal.bases.listing import base_lsns, base_path, bases, bases_path, open_base, remove_base
from mirrortool.journal.directory import Journal
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.replay import makebase
from mirrortool.replay.makebase import MakeBase
from mirrortool.replay.session import Replay
from tests.fakes.disk import PowerCut, cut_at, faulty
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, images_of, replay_all
from tests.fakes.serial import volumes_at

PAGES = 40


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mt-") as path:  # short, as the links to it are
        (Path(path) / "b").mkdir()
        yield Path(path) / "b"


def make_journal(path: Path, frames: int = 30) -> JournalMaker:
    maker = JournalMaker(path, {"a": PAGES * PAGE}, file_bytes=8_000)
    (path / "recorder.json").unlink()  # it would be redone from LSN 1
    draw = random.Random(1)
    for number in range(frames):
        maker.frame(Write("a", number % PAGES, draw.randbytes(PAGE)), Commit())
    return maker


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    maker = make_journal(tmp_path / "J")
    yield maker.journal
    maker.abandon()


def make(journal: Journal, to: Path) -> int:
    with MakeBase(journal.path, to=str(to)) as making:
        making.run()
        return making.commit.lsn


def test_the_journal_keeps_a_link_and_the_base_is_used(journal: Journal, elsewhere: Path, tmp_path: Path) -> None:
    lsn = make(journal, elsewhere)
    (found,) = elsewhere.iterdir()
    assert os.readlink(base_path(journal, lsn)) == str(found)
    assert found.stat().st_mode & 0o777 == 0o600
    assert set(os.listdir(bases_path(journal))) == {"lock", f"{lsn:016x}.base"}
    assert Audit(journal.path).run().bases == 1
    prune(journal.path, Keep(size=1))
    assert journal.file_starts()[0] > 1
    replay_all(journal, tmp_path / "M")
    assert images_of(tmp_path / "M")["a"] == images_of(replayed_from(journal, tmp_path))["a"]


def replayed_from(journal: Journal, tmp_path: Path) -> Path:
    with Replay(journal.path, str(tmp_path / "N")) as replay:
        assert replay.start.base
        replay.run()
    return tmp_path / "N"


def test_a_missing_target_is_12_and_names_the_directory(
    journal: Journal, elsewhere: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lsn = make(journal, elsewhere)
    elsewhere.rename(tmp_path / "unplugged")
    with pytest.raises(MissingFileError, match=f"base {lsn} is kept in {elsewhere}, and is not there"):
        open_base(journal, lsn)
    replay_all(journal, tmp_path / "M")
    assert images_of(tmp_path / "M") == volumes_at(journal), "the journal has all that is needed"
    words = ["verify J", "status J", "status --json J", "prune J --keep 1d", "base J"]
    for command in [[journal.path if word == "J" else word for word in line.split()] for line in words]:
        capsys.readouterr()
        assert main(command) == 12
        assert str(elsewhere) in capsys.readouterr().err
    (tmp_path / "unplugged").rename(elsewhere)
    prune(journal.path, Keep(size=1))
    elsewhere.rename(tmp_path / "unplugged")
    with pytest.raises(MissingFileError, match=str(elsewhere)):
        replay_all(journal, tmp_path / "N")
    assert not (tmp_path / "N").exists()


def test_what_goes_goes_there_too_but_not_by_a_copied_journal(
    journal: Journal, elsewhere: Path, tmp_path: Path
) -> None:
    lsn = make(journal, elsewhere)
    shutil.copytree(journal.path, tmp_path / "copied", symlinks=True)
    remove_base(Journal(str(tmp_path / "copied")), lsn)
    assert base_lsns(Journal(str(tmp_path / "copied"))) == []
    assert [base.lsn for base in bases(journal)] == [lsn], "that of the journal it was copied from is untouched"
    remove_base(journal, lsn)
    assert os.listdir(elsewhere) == []
    assert os.listdir(bases_path(journal)) == ["lock"]


def test_a_link_that_leads_to_something_else_costs_nothing_but_itself(journal: Journal, tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.write_text("not ours")
    os.makedirs(bases_path(journal), exist_ok=True)
    os.symlink(victim, base_path(journal, 2))
    os.symlink(tmp_path, files.join(bases_path(journal), "work"))
    remove_base(journal, 2)
    prune(journal.path, Keep(size=1 << 30))
    assert victim.read_text() == "not ours"
    assert os.listdir(bases_path(journal)) == ["lock"]


def test_a_link_that_finds_no_room_says_how_to_make_a_shorter_one(
    journal: Journal, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_target: str, path: str) -> None:
        raise NoSpaceError("cannot make a link", where=path)

    monkeypatch.setattr(files, "make_link", refuse)
    with pytest.raises(NoSpaceError, match=f"short links only: make one to {elsewhere}"):
        MakeBase(journal.path, to=str(elsewhere))
    assert os.listdir(bases_path(journal)) == ["lock"]


def test_no_crash_leaves_what_nobody_knows_of(tmp_path: Path) -> None:
    """Wherever it is killed, the next call removes what was begun there, and makes the base."""
    number = 0
    while True:
        number += 1
        path, there = tmp_path / f"J{number}", tmp_path / f"there{number}"
        there.mkdir()
        maker = make_journal(path, 3)
        journal = maker.abandon()
        try:
            with faulty(cut_at(number)):
                make(journal, there)
        except PowerCut:
            lsn = make(journal, there)
            assert [name.suffix for name in there.iterdir()] == [".base"], number
            assert set(os.listdir(bases_path(journal))) == {"lock", f"{lsn:016x}.base"}
            shutil.rmtree(path)
            continue
        break
    assert number > 10


@pytest.mark.parametrize("kind", ["nothing", "file", "journal"])
def test_a_place_that_cannot_be_one_is_refused(journal: Journal, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("")
    if kind == "journal":
        place = Path(journal.path)
    with pytest.raises(AccessError):
        MakeBase(journal.path, to=str(place))
    assert not os.path.lexists(files.join(bases_path(journal), "work"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_journal_disk_without_a_free_byte_gets_room_again(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slot holds everything back. A base on another disk, the slot dropped, pruned: the next recording succeeds."""
    monkeypatch.setattr(makebase, "_SPARE_BYTES", 1 << 20)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(small)], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        maker = make_journal(small / "J")
        journal = maker.journal
        with Replay(journal.path, str(tmp_path / "M"), slot="lagging") as replay:
            replay.run()
        fill(maker)
        assert files.free_bytes(journal.path) == 0
        assert main(["status", journal.path]) == 30
        told = capsys.readouterr().err
        assert "slot lagging holds back" in told
        assert f"mirrortool slot drop {journal.path} lagging" in told
        with pytest.raises(NoSpaceError, match="--to"):
            MakeBase(journal.path)
        assert main(["base", journal.path, "--to", str(elsewhere)]) == 0
        assert main(["slot", "drop", journal.path, "lagging"]) == 0
        assert main(["prune", journal.path, "--keep-size", "1"]) == 0
        assert files.free_bytes(journal.path) > 100_000
        assert main(["verify", journal.path]) == 0
        replay_all(journal, tmp_path / "N")
        assert main(["verify", str(tmp_path / "N")]) == 0
        maker.writer.abandon()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def fill(maker: JournalMaker) -> None:
    """Record until the disk is full, and take the rest."""
    draw = random.Random(2)
    with contextlib.suppress(NoSpaceError):
        while True:
            maker.frame(Write("a", draw.randrange(PAGES), draw.randbytes(PAGE)), Commit())
    filler = os.open(Path(maker.journal.path).parent / "filler", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(filler, bytes(512)):
            pass
    os.close(filler)
