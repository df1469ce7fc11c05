"""Sums rot on a disk as all else does: verify names the file, and replay does not blame a sound journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import ChangedOutsideError, CorruptJournalError
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import findings
from mirrortool.operation import BatchBuilder, CommitKind
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, Zero, assert_verifies, making, replay_all, verified

SEGMENT = (16 << 20) // PAGE


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalMaker]:
    monkeypatch.setattr("mirrortool.replay.delegator.find_changed_page", lambda *_, **_names: None)
    frame = Write("a", 0, b"x" * (40 * PAGE)), Write("a", SEGMENT, b"y" * PAGE), Commit()
    with making(tmp_path / "J", {"a": 2 * SEGMENT * PAGE}, *frame) as made:
        yield made


@pytest.fixture
def mirror(maker: JournalMaker, tmp_path: Path) -> Path:
    replay_all(maker.journal, tmp_path / "M")
    return tmp_path / "M"


def rot(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x40]))


@pytest.mark.parametrize(("name", "offset"), [("a.segments", 3), ("a.segments", 11), ("a.sums", 3 * 8)])
def test_verify_names_the_file_that_is_wrong(
    mirror: Path, name: str, offset: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rot(mirror / "sums" / name, offset)
    result = verified(mirror)
    assert list(result.wrong_sums) == [str(mirror / "sums" / name)]
    assert main(["verify", str(mirror), "-q"]) == (1 if name == "a.sums" else 21)
    if name == "a.segments":
        assert f"{mirror}/sums/a.segments: " in capsys.readouterr().err
    assert name in findings(Mirror(str(mirror)))[0].sums


def test_rot_in_the_sums_of_segments_does_not_blame_the_journal(maker: JournalMaker, mirror: Path) -> None:
    """A ZERO of a whole segment takes the segment's term from there."""
    rot(mirror / "sums/a.segments", 3)
    maker.frame(Zero("a", 0, SEGMENT), Commit())
    replay_all(maker.journal, mirror)
    assert_verifies(mirror)


def test_a_replay_makes_segments_anew_that_are_known_to_be_wrong(maker: JournalMaker, mirror: Path) -> None:
    rot(mirror / "sums/a.segments", 3)
    assert not verified(mirror).is_right
    replay_all(maker.journal, mirror)
    assert not findings(Mirror(str(mirror)))
    assert_verifies(mirror)


def test_rot_in_the_sum_of_a_page_that_is_written_is_gone_with_it(maker: JournalMaker, mirror: Path) -> None:
    rot(mirror / "sums/a.sums", 3 * 8)
    maker.frame(Write("a", 3, b"z" * PAGE), Commit())
    replay_all(maker.journal, mirror)
    assert_verifies(mirror)


def test_rot_in_the_sums_that_stays_is_the_mirrors(maker: JournalMaker, mirror: Path) -> None:
    rot(mirror / "sums/a.sums", 3 * 8)
    rot(mirror / "sums/a.sums", 5 * 8)
    maker.frame(Write("a", 3, b"z" * PAGE), Commit())
    with pytest.raises(ChangedOutsideError, match="the journal is not to blame") as caught:
        replay_all(maker.journal, mirror)
    assert caught.value.where == str(mirror / "sums")


def test_a_journal_that_contradicts_itself_is_to_blame(maker: JournalMaker, mirror: Path) -> None:
    builder = BatchBuilder(PAGE)
    builder.commit(CommitKind.FLUSH, maker.writer.durable.lsn, None)
    maker.append(builder.build(), state_sum=7)
    maker.writer.sync()
    with pytest.raises(CorruptJournalError, match="is not what its operations give"):
        replay_all(maker.journal, mirror)


def test_after_a_crash_it_is_said_that_it_may_be_either(maker: JournalMaker, mirror: Path) -> None:
    opened = Mirror(str(mirror))
    rot(mirror / "sums/a.sums", 5 * 8)
    maker.frame(Write("a", 3, b"z" * PAGE), Commit())
    opened.save_checkpoint(opened.checkpoint.reaching(opened.checkpoint.position.lsn + 2))
    with pytest.raises(ChangedOutsideError, match="they are damaged, or the journal is"):
        replay_all(maker.journal, mirror)
