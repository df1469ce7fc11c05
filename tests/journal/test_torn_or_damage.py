"""Every row of the table in judgement.py: which undecodable bytes a crash explains, and which are damage."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import xxhash

from mirrortool import hostinfo
from mirrortool.errors import CorruptJournalError, JournalError, NewerJournalError, TornJournalError
from mirrortool.journal import format as layout
from mirrortool.journal import judgement
from mirrortool.journal.copies.copy import Copy
from mirrortool.journal.directory import Journal
from mirrortool.journal.durablemark import save_mark
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.writer import JournalWriter
from mirrortool.lsn import Lsn
from tests.journal.sample import (
    HEADER,
    Recorded,
    append,
    commit_batch,
    cut,
    flip,
    journal_files,
    last_file,
    make_journal,
    open_writer,
    read_all,
    write_batch,
)

pytestmark = pytest.mark.usefixtures("no_sync")


class Scene:
    """Three frames of one file, the third of which is about to be damaged; nothing of them is known to be durable."""

    def __init__(self, path: pathlib.Path, last_durable: int | None = None) -> None:
        self.journal = make_journal(path)
        self.writer: JournalWriter = open_writer(self.journal)
        self.frames = [append(self.writer, write_batch(number, number)) for number in range(2)]
        self.frames.append(
            append(self.writer, write_batch(2, 2) if last_durable is None else commit_batch(last_durable))
        )
        self.damaged = self.frames[-1]

    def checkpoint(self, frame: Recorded) -> None:
        known = self.journal.recorder_checkpoint()
        assert known
        self.journal.save_recorder_checkpoint(replace(known, position=frame.position))

    def become_a_copy(self, durable: Recorded | None = None) -> None:
        """Without a durable mark, as an older version made it, or with one at the end of this frame."""
        pathlib.Path(self.journal.path, "recorder.json").unlink(missing_ok=True)
        if durable:
            save_mark(self.journal.path, durable.position, self.journal.volumes.sizes)

    def read(self) -> type[JournalError] | None:
        result = read_all(Journal(self.journal.path))
        assert result.frames == self.frames[: len(result.frames)]
        if isinstance(result.error, TornJournalError):
            at = result.error.offset
            assert at in (0, *(frame.offset for frame in self.frames))
        return result.error and type(result.error)


def cut_in_header(scene: Scene) -> None:
    cut(last_file(scene.journal), scene.damaged.offset + 10)


def cut_in_body(scene: Scene) -> None:
    cut(last_file(scene.journal), scene.damaged.end - 1)


def flip_in_header(scene: Scene) -> None:
    flip(journal_files(scene.journal.path)[0], scene.damaged.offset + 10)


def flip_in_body(scene: Scene) -> None:
    flip(journal_files(scene.journal.path)[0], scene.damaged.end - 1)


def zeros_at_the_end(scene: Scene) -> None:
    path = last_file(scene.journal)
    path.write_bytes(path.read_bytes()[: scene.damaged.offset] + bytes(scene.damaged.end - scene.damaged.offset))


CUTS = [cut_in_header, cut_in_body]
FLIPS = [flip_in_header, flip_in_body, zeros_at_the_end]
Damage = Callable[[Scene], None]


def rows() -> list[str]:
    """The conditions of the table, in order."""
    table = (judgement.__doc__ or "").split("Not here:")[0]
    return re.findall(r"^    (\S.*?)   ", table, re.MULTILINE)


def test_this_module_has_a_test_for_every_row() -> None:
    assert rows() == [
        "they have their checksums, and are of a later format",
        "another journal file follows",
        "they are a sound header of another file",
        "they begin before the end that a clean stop noted",
        "a reader holds a position after them",
        "they begin with an LSN that is known to have been durable",
        "the kernel that wrote them still runs",
        "otherwise",
    ]


@pytest.fixture
def scene(tmp_path: pathlib.Path) -> Scene:
    return Scene(tmp_path / "journal")


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")


@pytest.mark.parametrize("damage", CUTS)
def test_the_same_kernel_cut_short_is_torn(scene: Scene, damage: Damage) -> None:
    damage(scene)
    assert scene.read() is TornJournalError


@pytest.mark.parametrize("damage", FLIPS)
def test_the_same_kernel_otherwise_is_damage(scene: Scene, damage: Damage) -> None:
    damage(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [*CUTS, *FLIPS])
@pytest.mark.parametrize("how", ["other boot", "copy", "no boot id"])
def test_otherwise_is_torn(
    scene: Scene, damage: Damage, how: str, boot: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "other boot":
        boot()
    elif how == "copy":
        scene.become_a_copy()
    else:
        monkeypatch.setattr(hostinfo, "boot_id", lambda: "")
        known = scene.journal.recorder_checkpoint()
        assert known
        scene.journal.save_recorder_checkpoint(replace(known, boot_id=""))
    damage(scene)
    assert scene.read() is TornJournalError


@pytest.mark.parametrize(
    ("is_copy", "remedy"), [(False, "mirrortool record moves"), (True, "next mirrortool ship to this copy mends")]
)
def test_who_mends_a_torn_tail_is_who_appends(scene: Scene, is_copy: bool, remedy: str) -> None:
    cut_in_body(scene)
    if is_copy:
        scene.become_a_copy()
    assert remedy in str(read_all(Journal(scene.journal.path)).error)


def later_file(data: bytearray, _offset: int, _seed: int) -> None:
    data[8:12] = (2).to_bytes(4, "little")
    data[HEADER - 8 : HEADER] = xxhash.xxh3_64_intdigest(bytes(data[: HEADER - 8])).to_bytes(8, "little")


def later_frame(data: bytearray, offset: int, seed: int, at: int = 25, value: int = 8) -> None:
    data[offset + at] |= value
    header = bytes(data[offset : offset + 64])
    data[offset + 64 : offset + 72] = xxhash.xxh3_64_intdigest(header, seed).to_bytes(8, "little")


def later_codec(data: bytearray, offset: int, seed: int) -> None:
    later_frame(data, offset, seed, 24, 2)


def later_reserved(data: bytearray, offset: int, seed: int) -> None:
    later_frame(data, offset, seed, 28, 1)


def later_kind(data: bytearray, offset: int, seed: int) -> None:
    data[offset + 72] = 6
    body = xxhash.xxh3_64_intdigest(bytes(data[offset + 72 :])).to_bytes(8, "little")
    data[offset + 56 : offset + 64] = body
    later_frame(data, offset, seed, 25, 0)


@pytest.mark.parametrize("change", [later_file, later_frame, later_codec, later_reserved, later_kind])
@pytest.mark.parametrize("is_copy", [False, True])
def test_what_is_of_a_later_format_is_never_a_torn_tail(
    scene: Scene, boot: Callable[[], None], change: Callable[[bytearray, int, int], None], is_copy: bool
) -> None:
    """A recorder would cut it off, and a receiver write over it."""
    path = last_file(scene.journal)
    data = bytearray(path.read_bytes())
    change(data, scene.damaged.offset, layout.frame_seed(scene.journal.uuid, Lsn(1), scene.damaged.offset))
    path.write_bytes(data)
    scene.writer.abandon()
    boot()
    if is_copy:
        scene.become_a_copy(scene.frames[0])
        pathlib.Path(scene.journal.path, "local.json").unlink()
    if change is not later_kind:  # of frames that were read before, or are only passed on, the operations do not count
        with pytest.raises(NewerJournalError, match="a newer one wrote it"):
            Copy(scene.journal.path) if is_copy else open_writer(Journal(scene.journal.path))
    assert scene.read() is NewerJournalError
    assert path.read_bytes() == data


@pytest.mark.parametrize("damage", [flip_in_header, flip_in_body])
def test_another_journal_file_follows(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    scene.writer._file_bytes = 1
    append(scene.writer, write_batch(3, 3))
    boot()
    damage(scene)
    assert scene.read() is CorruptJournalError


def test_a_cut_file_is_damage_where_another_follows(scene: Scene, boot: Callable[[], None]) -> None:
    scene.writer._file_bytes = 1
    append(scene.writer, write_batch(3, 3))
    boot()
    for size in range(scene.damaged.offset + 1, scene.damaged.end):
        cut(journal_files(scene.journal.path)[0], size)
        assert scene.read() is CorruptJournalError


def test_a_sound_header_of_another_file(scene: Scene, boot: Callable[[], None]) -> None:
    boot()
    path = last_file(scene.journal)
    path.with_name("0000000000000004.mj").write_bytes(path.read_bytes())
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [*CUTS, *FLIPS])
def test_before_the_end_that_a_clean_stop_noted(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    scene.writer.close()
    boot()
    damage(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("size", [0, 50, HEADER])
def test_a_cut_before_the_clean_end_is_damage_also_at_the_end_of_a_frame(scene: Scene, size: int) -> None:
    scene.writer.close()
    for place in (size, scene.frames[0].end, scene.damaged.offset):
        cut(last_file(scene.journal), place)
        assert scene.read() is CorruptJournalError


def test_bytes_behind_the_clean_end_are_torn(scene: Scene, boot: Callable[[], None]) -> None:
    scene.writer.close()
    boot()
    path = last_file(scene.journal)
    path.write_bytes(path.read_bytes() + b"more")
    result = read_all(Journal(scene.journal.path))
    assert result.frames == scene.frames
    assert isinstance(result.error, TornJournalError)
    assert result.error.offset == scene.damaged.end


def test_the_header_of_a_file_that_a_clean_stop_noted(scene: Scene, boot: Callable[[], None]) -> None:
    """The stop came when the file was begun, but held no frame yet."""
    scene.writer._file_bytes = 1
    scene.writer._begin_file()
    scene.writer.close()
    boot()
    assert scene.read() is None
    whole = last_file(scene.journal).read_bytes()
    flip(last_file(scene.journal), 70)
    assert scene.read() is CorruptJournalError
    for size in (0, 127):
        last_file(scene.journal).write_bytes(whole[:size])
        assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [*CUTS, flip_in_header, zeros_at_the_end])
def test_somebody_holds_a_position_behind_them(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    boot()
    damage(scene)
    for frame, error in zip(scene.frames, [TornJournalError, TornJournalError, CorruptJournalError], strict=True):
        assert isinstance(read_all(scene.journal, frame.position).error, error)


@pytest.mark.parametrize("damage", [*CUTS, *FLIPS])
def test_the_checkpoint_says_that_they_were_durable(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    scene.checkpoint(scene.damaged)
    boot()
    damage(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [*CUTS, *FLIPS])
def test_the_checkpoint_says_nothing_of_later_ones(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    scene.checkpoint(scene.frames[1])
    boot()
    damage(scene)
    assert scene.read() is TornJournalError


@pytest.mark.parametrize("damage", [flip_in_header, flip_in_body])
@pytest.mark.parametrize("between", [0, 2], ids=["next", "further on"])
@pytest.mark.parametrize("copy", [True, False], ids=["copy", "other boot"])
def test_a_later_commit_says_that_they_were_durable(
    scene: Scene, damage: Damage, between: int, copy: bool, boot: Callable[[], None]
) -> None:
    for number in range(between):
        append(scene.writer, write_batch(number, number))
    append(scene.writer, commit_batch(scene.damaged.position.lsn))
    scene.become_a_copy() if copy else boot()
    damage(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [*CUTS, *FLIPS])
def test_the_mark_of_a_copy_says_that_they_were_durable(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    scene.become_a_copy(scene.damaged)
    boot()
    damage(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("is_same_kernel", [False, True])
@pytest.mark.parametrize("damage", [flip_in_header, flip_in_body])
def test_of_a_copy_with_a_mark_no_commit_says_that_they_were_durable(
    scene: Scene, damage: Damage, boot: Callable[[], None], is_same_kernel: bool
) -> None:
    """It was durable on the primary."""
    append(scene.writer, commit_batch(scene.damaged.position.lsn))
    scene.become_a_copy(scene.frames[1])
    if not is_same_kernel:
        boot()
    damage(scene)
    assert scene.read() is (CorruptJournalError if is_same_kernel else TornJournalError)


@pytest.mark.parametrize("is_marked", [False, True])
def test_of_a_copy_with_a_mark_no_held_position_says_that_they_were_durable(
    scene: Scene, boot: Callable[[], None], is_marked: bool
) -> None:
    """A receiver that cannot make them durable cuts them off, whoever has read them."""
    scene.become_a_copy(scene.frames[1] if is_marked else None)
    boot()
    flip_in_header(scene)
    with pytest.raises(TornJournalError if is_marked else CorruptJournalError):
        JournalReader(Journal(scene.journal.path), scene.damaged.position)


@pytest.mark.parametrize("how", ["not valid", "of a newer format", "of another directory", "of a primary"])
def test_a_mark_that_does_not_count(scene: Scene, how: str, boot: Callable[[], None]) -> None:
    append(scene.writer, commit_batch(scene.damaged.position.lsn))
    if how == "of a primary":
        save_mark(scene.journal.path, scene.frames[1].position, scene.journal.volumes.sizes)
    else:
        scene.become_a_copy(scene.frames[1])
    path = pathlib.Path(scene.journal.path, "received.json")
    values = json.loads(path.read_text())
    changed = {"not valid": {"position": 3}, "of a newer format": {"format": 2}, "of another directory": {"files": 1}}
    path.write_text(json.dumps({**values, **changed.get(how, {})}))
    boot()
    flip_in_body(scene)
    assert scene.read() is CorruptJournalError


@pytest.mark.parametrize("damage", [flip_in_header, flip_in_body])
def test_a_later_commit_that_names_less_says_nothing(scene: Scene, damage: Damage, boot: Callable[[], None]) -> None:
    """A power cut loses any subset of what was not durable, not just the end of it."""
    append(scene.writer, commit_batch(scene.frames[1].position.lsn))
    boot()
    damage(scene)
    assert scene.read() is TornJournalError


def test_a_commit_before_cannot_speak_of_what_follows_it(tmp_path: pathlib.Path, boot: Callable[[], None]) -> None:
    scene = Scene(tmp_path / "journal", last_durable=2)
    scene.frames.append(append(scene.writer, write_batch(3, 3)))
    boot()
    flip(last_file(scene.journal), scene.frames[-1].end - 1)
    assert scene.read() is TornJournalError


@pytest.mark.parametrize("size", [0, 5, 200])
def test_the_header_of_a_new_last_file_may_be_torn(scene: Scene, size: int, boot: Callable[[], None]) -> None:
    scene.writer._file_bytes = 1
    append(scene.writer, write_batch(3, 3))
    boot()
    last_file(scene.journal).write_bytes(bytes(size))
    assert scene.read() is (TornJournalError if size >= HEADER else None)


@pytest.mark.parametrize("offset", [0, 10, 60, HEADER - 1])
@pytest.mark.parametrize("known", ["commit", "checkpoint", "clean stop"])
def test_the_header_of_a_file_with_durable_frames_is_damage(
    scene: Scene, offset: int, known: str, boot: Callable[[], None]
) -> None:
    """A commit in that very file says so: without it, all of the file would be taken for a torn tail."""
    scene.writer._file_bytes = 1
    frame = append(scene.writer, write_batch(3, 3))
    scene.writer._file_bytes = 1000
    if known == "commit":
        append(scene.writer, commit_batch(frame.position.lsn))
    elif known == "checkpoint":
        scene.checkpoint(frame)
    else:
        scene.writer.close()
    boot()
    flip(last_file(scene.journal), offset)
    assert scene.read() is CorruptJournalError


def test_a_missing_last_file_is_damage_where_its_frames_were_durable(scene: Scene) -> None:
    scene.writer._file_bytes = 1
    scene.checkpoint(append(scene.writer, write_batch(3, 3)))
    last_file(scene.journal).unlink()
    assert scene.read() is CorruptJournalError
