"""Damage: a byte of a journal, of a mirror's volume, of a small file; it is found, named, and put right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mirrortool import Audit, Journal, Keep, Mirror, MirrorStatus, Recorder, Verify, prune, status_of
from mirrortool.errors import (
    ChangedOutsideError,
    DamagedSlotError,
    JournalError,
    NotAJournalError,
    NotAMirrorError,
    TornJournalError,
    UsageError,
)
from mirrortool.lsn import Lsn
from tests.fakes.journals import images_of
from tests.machine.site import SHARES, Site, at, precondition, rule, stands


@contextmanager
def other_bytes(path: str, data: bytes | None) -> Iterator[None]:
    """A file is damaged, or gone, and as it was in the end."""
    before = Path(path).read_bytes()
    if data is None:
        os.rename(path, f"{path}.away")
    else:
        Path(path).write_bytes(data)
    try:
        yield
    finally:
        if data is None:
            os.rename(f"{path}.away", path)
        else:
            Path(path).write_bytes(before)


def flipped(data: bytes, where: float, bit: int) -> bytes:
    place = at(where, len(data))
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def damaged(data: bytes, how: str, where: float, bit: int) -> bytes | None:
    """What is left of a file; None for nothing."""
    if how == "flip":
        return flipped(data, where, bit)
    return data[: at(where, len(data))] if how == "cut" else None


class Damaging(Site):
    def _holds_a_commit(self, mirror: str) -> bool:
        checkpoint = self.checkpoint(mirror)
        return checkpoint.is_consistent and checkpoint.position.lsn > 0

    def _chosen(self, in_copy: bool) -> str:
        return self.copy_path if in_copy and self.has_copy else self.journal_path

    def _damaged_journal(self, in_copy: bool, file: float) -> tuple[str, str, bool]:
        """A journal, one of its files, and whether that is the newest."""
        path = self._chosen(in_copy)
        starts = Journal(path).file_starts()
        start = starts[at(file, len(starts))]
        return path, Journal(path).file_path(start), start == starts[-1]

    @rule(
        how=st.sampled_from(["flip", "flip", "cut", "lose"]),
        in_copy=st.booleans(),
        file=SHARES,
        where=SHARES,
        bit=st.integers(0, 7),
    )
    def damage_journal(self, how: str, in_copy: bool, file: float, where: float, bit: int) -> None:
        """No byte of a journal changes or goes without an audit's telling; what is replayed meanwhile is right."""
        if not Journal(self._chosen(in_copy)).file_starts():
            return  # of a copy that was only begun
        path, name, is_newest = self._damaged_journal(in_copy, file)
        data, commits = Path(name).read_bytes(), self.restorable(path)
        if how != "flip" and is_newest and Journal(path).clean_end is None:
            return  # as a crash may leave it
        if how == "lose" and name == Journal(path).file_path(Journal(path).file_starts()[0]):
            return  # as prune may leave it
        with other_bytes(name, damaged(data, how, where, bit)):
            code = self._audit_damaged(path, is_newest=is_newest)
            self._replay_damaged(path, commits, is_torn=code == TornJournalError.exit_code)
        Audit(path).run()
        self.done[f"journal: {how}"] += 1

    def _audit_damaged(self, path: str, *, is_newest: bool) -> int:
        """The exit code. At the end of a journal that is being recorded, it is what is being appended."""
        code = 0
        try:
            result = Audit(path).run()
        except JournalError as error:
            code = error.exit_code
        if code:
            assert code in (10, 11, 12, 13)
            return code
        assert is_newest and self.recorder and path == self.journal_path, "the damage was not found"
        assert result.lsn < self.model.head_lsn or Path(Journal(path).file_path(Lsn(result.lsn + 1))).exists()
        return TornJournalError.exit_code

    def _replay_damaged(self, path: str, commits: list[int], *, is_torn: bool) -> None:
        scratch = self.scratch()
        try:
            lsn = self.replay(path, scratch, commits[-1] if commits else None)
            assert images_of(scratch) == self.model.state_at(lsn)
        except UsageError:
            assert is_torn, "only a journal that seems to end before the commit may not know it"
        except JournalError:
            if os.path.exists(f"{scratch}/mirror.json"):
                checkpoint = Mirror(scratch).checkpoint
                lsn = checkpoint.position.lsn
                if checkpoint.is_consistent and lsn >= self.model.first_lsn:
                    assert images_of(scratch) == self.model.state_at(lsn)
        shutil.rmtree(scratch, ignore_errors=True)

    @precondition(lambda machine: machine.made_mirrors())
    @rule(which=st.integers(0, 1), where=SHARES, bit=st.integers(0, 7), anew=st.booleans())
    def flip_in_mirror(self, which: int, where: float, bit: int, anew: bool) -> None:
        """Verify names the page, status tells it, no replay runs until the byte is back, or the mirror made anew."""
        mirrors = [path for path in self.made_mirrors() if path not in self.forked and self._holds_a_commit(path)]
        if not mirrors:
            return
        mirror = mirrors[which % len(mirrors)]
        image = f"{mirror}/volumes/a.img"
        data = Path(image).read_bytes()
        with other_bytes(image, flipped(data, where, bit)):
            with Verify(mirror, cached=True) as verify:
                result = verify.run()
            (run,) = result.bad_runs
            assert (run.volume, run.first_page, run.count) == ("a", at(where, len(data)) // self.page_size, 1)
            status = status_of(mirror)
            assert isinstance(status, MirrorStatus) and status.known_bad
            with pytest.raises(ChangedOutsideError):
                self.replay(self.mirrors[mirror], mirror)
        if anew:
            self.make_anew(mirror)
        else:
            with Verify(mirror, cached=True) as verify:
                assert verify.run().is_right
            status = status_of(mirror)
            assert isinstance(status, MirrorStatus) and not status.known_bad
        self.done["flip in mirror"] += 1

    @rule(which=st.sampled_from(["mirror.json", "checkpoint.json", "journal.json", "recorder.json"]), where=SHARES)
    def cut_a_small_file(self, which: str, where: float) -> None:
        """Nothing is done with what is not described."""
        for mirror, source in self.made_mirrors().items():
            if os.path.exists(path := f"{mirror}/{which}"):
                with self._cut(path, where), pytest.raises(NotAMirrorError):
                    self.replay(source, mirror)
        if stands(self) and os.path.exists(path := f"{self.journal_path}/{which}"):
            with self._cut(path, where), pytest.raises(NotAJournalError):
                Recorder(self.journal_path, background=False)
        if which == "journal.json":
            self._cut_a_slot(where)
        self.done["cut small file"] += 1

    @contextmanager
    def _cut(self, path: str, where: float) -> Iterator[None]:
        data = Path(path).read_bytes()
        with other_bytes(path, data[: at(where, len(data) - 2)]):
            yield

    def _cut_a_slot(self, where: float) -> None:
        """Nothing is pruned while it is not known what a reader needs; the reader writes its slot anew."""
        near = os.path.join(self.path, "near")
        slots = list(Path(self.journal_path, "slots").glob("*near*.json"))
        if not slots or near not in self.made_mirrors() or near in self.forked:
            return
        data = slots[0].read_bytes()
        slots[0].write_bytes(data[: at(where, len(data) - 2)])
        with pytest.raises(DamagedSlotError):
            prune(self.journal_path, Keep(size=0))
        self.replay(self.journal_path, near)
        prune(self.journal_path, Keep(seconds=1e6))
        self.done["cut small file"] += 1
