"""A journal cut at every byte, and with every byte changed: what is read is true, or an error says why it is not.

The ordinary suite does every fourth byte, neighbouring scenes different ones; the soak does the others:
pytest -m soak tests/crash/test_journal_bytes.py

Reading gives a prefix of what was written that ends at a frame, then perhaps a JournalError; nothing else, ever.
After a clean stop nothing passes unseen. After a crash, recovery moves the torn tail away byte for byte, the sums are
those of the frames that are left, and the next frame follows them.
"""

from __future__ import annotations

import pathlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mirrortool import hostinfo
from mirrortool.errors import (
    CorruptJournalError,
    JournalError,
    MirrortoolError,
    MissingFileError,
    TornJournalError,
)
from mirrortool.journal.directory import Journal
from mirrortool.operation import Kind
from mirrortool.record.recovery import OpenJournal
from tests.fakes.parts import in_parts
from tests.journal.sample import (
    Read,
    Recorded,
    Recording,
    append,
    commit_batch,
    facts_of,
    flip,
    journal_files,
    last_file,
    model_after,
    read_all,
    recorded_sizes,
    write_batch,
)

HEADER = 128
FILE_BYTES = 420
SYNCED, CHECKPOINTED, UNSYNCED = 6, 3, 2

pytestmark = pytest.mark.usefixtures("no_sync")


@dataclass(frozen=True)
class Scene:
    """A journal of three files or more, and all that is true of it.

    Attributes:
        durable: the frames that the small files say were durable.
        old_sums: the directory of sums as it was at the checkpoint.
    """

    path: pathlib.Path
    truth: list[Recorded]
    durable: int
    old_sums: pathlib.Path

    def open(self) -> Journal:
        return Journal(str(self.path))

    def in_last_file(self) -> list[Recorded]:
        return [frame for frame in self.truth if frame.file_first_lsn == self.truth[-1].file_first_lsn]


def record(directory: pathlib.Path, *, stop: str) -> Scene:
    """Record, and stop cleanly or by a crash before the last frames were made durable; `copy` has the journal alone."""
    path, old_sums = directory / "journal", directory / "old-sums"
    recording = Recording(path, file_bytes=FILE_BYTES, seed=4)
    for number in range(SYNCED):
        recording.append(commit_batch(recording.opened.writer.durable.lsn) if number == SYNCED - 2 else None)
        if number + 1 == CHECKPOINTED:
            recording.checkpoint()
            shutil.copytree(path / "sums", old_sums)
    recording.opened.writer._file_bytes = 10 * FILE_BYTES
    for _ in range(UNSYNCED):
        recording.append(sync=False)
    durable = CHECKPOINTED
    if stop == "clean":
        recording.sync()
        recording.checkpoint()
        durable = len(recording.frames)
        recording.opened.__exit__()
    else:
        recording.opened._opened.close()
    if stop == "copy":
        (path / "recorder.json").unlink()
        durable = 0
    scene = Scene(path, recording.frames, durable, old_sums)
    assert len(journal_files(path)) >= 3
    assert {kind for frame in scene.truth for _, kind, *_ in frame.operations} >= {Kind.WRITE, Kind.ZERO, Kind.RESIZE}
    assert len(scene.in_last_file()) >= UNSYNCED
    return scene


SCENES = ["clean stop, other boot", "crash, same boot", "crash, other boot", "copy, other boot"]


@pytest.fixture(params=SCENES)
def stop(request: pytest.FixtureRequest) -> str:
    """How the recorder stopped, and whether the kernel that it ran on is gone by now."""
    return str(request.param)


@pytest.fixture
def scene(tmp_path: pathlib.Path, stop: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = record(tmp_path, stop=stop.split()[0].strip(","))
    if "other boot" in stop:
        monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    assert read_all(made.open()) == Read(made.truth)
    return made


def check(scene: Scene, stop: str) -> Read:
    """What is read is a prefix of the truth; what is missing of it is explained."""
    result = read_all(scene.open())
    left = len(result.frames)
    assert result.frames == scene.truth[:left]
    if result.error is None or isinstance(result.error, TornJournalError):
        assert "clean" not in stop
        assert left >= scene.durable
    if isinstance(result.error, TornJournalError):
        path, offset = pathlib.Path(result.error.path), result.error.offset
        assert path == last_file(scene.open())
        ends = [frame.end for frame in result.frames if scene.open().file_path(frame.file_first_lsn) == str(path)]
        assert offset == (ends[-1] if ends else HEADER if path.stat().st_size > HEADER and offset else 0)
    return result


def share(part: int, stop: str, first: int, end: int) -> range:
    """Every fourth number from `first` to `end-1`; neighbouring scenes have different ones."""
    return range(first + (part + SCENES.index(stop) + first) % 4, end, 4)


@in_parts(4)
def test_every_flip_is_found(scene: Scene, stop: str, part: int) -> None:
    for path in journal_files(scene.path):
        whole = path.read_bytes()
        for offset in share(part, stop, 0, len(whole)):
            flip(path, offset, 1 << offset % 8)
            error = check(scene, stop).error
            assert error is not None
            if "same boot" in stop:
                assert isinstance(error, CorruptJournalError)
            path.write_bytes(whole)


@in_parts(4)
def test_every_cut_ends_at_a_frame(scene: Scene, stop: str, part: int) -> None:
    last = last_file(scene.open())
    ends = {frame.end for frame in scene.in_last_file()}
    for path in journal_files(scene.path):
        whole = path.read_bytes()
        for size in share(part, stop, 0, len(whole)):
            path.write_bytes(whole[:size])
            error = check(scene, stop).error
            if path != last:
                assert isinstance(error, CorruptJournalError | MissingFileError)
            elif error is None:
                assert size in ends or size <= HEADER
            elif not isinstance(error, TornJournalError):
                assert "clean" in stop or size < scene.truth[max(0, scene.durable - 1)].end
        path.write_bytes(whole)


def test_every_cut_filled_with_zeros_or_noise_is_found(scene: Scene, stop: str) -> None:
    """As a power cut leaves a file whose size was written before its content."""
    path = last_file(scene.open())
    whole, chance = path.read_bytes(), random.Random(3)
    for size in range(SCENES.index(stop), len(whole), 5):
        for rest in (bytes(len(whole) - size), chance.randbytes(len(whole) - size)):
            path.write_bytes(whole[:size] + rest)
            if path.read_bytes() != whole:
                assert check(scene, stop).error is not None


def test_every_missing_file_is_found(scene: Scene, stop: str) -> None:
    for path in journal_files(scene.path)[:-1]:
        hidden = path.rename(path.with_suffix(".hidden"))
        result = read_all(scene.open(), scene.open().start)
        assert isinstance(result.error, MissingFileError)
        assert result.frames == scene.truth[: len(result.frames)]
        hidden.rename(path)
    last_file(scene.open()).unlink()
    assert isinstance(check(scene, stop).error, JournalError if "clean" in stop else JournalError | None)


def test_a_flip_in_a_small_file_alters_no_operation(scene: Scene) -> None:
    """They have no checksum: the journal may look longer or shorter, or like none, but never like another."""
    for name in ("journal.json", "recorder.json"):
        path = scene.path / name
        if not path.exists():
            continue
        whole = path.read_bytes()
        for offset in range(len(whole)):
            flip(path, offset, 1 << offset % 7)
            try:
                frames = read_all(scene.open()).frames
            except MirrortoolError:
                frames = []
            assert frames == scene.truth[: len(frames)]
        path.write_bytes(whole)


def lose_sums(scene: Scene, how: int, chance: random.Random) -> None:
    """A power cut loses what was written to the sums since the checkpoint: nothing of it, all, or some."""
    for new in sorted((scene.path / "sums").iterdir()):
        old_data, new_data = (scene.old_sums / new.name).read_bytes(), new.read_bytes()
        size = max(len(old_data), len(new_data))
        pairs = zip(words(old_data, size), words(new_data, size), strict=True)
        new.write_bytes(b"".join(pair[1 if how == 0 else 0 if how == 1 else chance.randrange(2)] for pair in pairs))


def words(data: bytes, size: int) -> Iterator[bytes]:
    padded = data.ljust(size, b"\0")
    return (padded[i : i + 8] for i in range(0, size, 8))


def recover(scene: Scene, how: int, chance: random.Random) -> None:
    """Open what a crash left for appending, and check all that recovery promises."""
    before = read_all(scene.open())
    damaged = {path: path.read_bytes() for path in journal_files(scene.path)}
    lose_sums(scene, how, chance)
    kept = before.frames
    with OpenJournal(str(scene.path)) as opened:
        if isinstance(before.error, TornJournalError):
            assert opened.torn
            torn = damaged[pathlib.Path(before.error.path)][before.error.offset :]
            assert pathlib.Path(opened.torn).read_bytes() == torn
        else:
            assert before.error is None
            assert opened.torn is None
        assert opened.writer.position == kept[-1].position
        model = model_after(kept)
        model.check(opened.sums)
        assert opened.sums.state_sum == opened.writer.state_sum
        assert read_all(scene.open()) == Read(kept)
        batch = write_batch(1, 200)
        model.apply(list(map(facts_of, batch.operations(opened.writer.position.lsn + 1))))
        added = append(opened.writer, batch, model.state_sum)
        opened.writer.sync()
        opened.sums.apply_batch(batch)
        opened.save_checkpoint(recorded_sizes(model.volumes))
    assert read_all(scene.open()) == Read([*kept, added])
    assert scene.open().clean_end
    with OpenJournal(str(scene.path)) as again:
        assert again.torn is None
        assert again.writer.position == added.position
        model.check(again.sums)


@pytest.fixture
def crashed(tmp_path: pathlib.Path, stop: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    made = record(tmp_path, stop="crash")
    if "other boot" in stop:
        monkeypatch.setattr(hostinfo, "boot_id", lambda: "another")
    return made


def not_durable(scene: Scene) -> tuple[int, int]:
    """Where in the last file the frames begin that were not made durable, and where they end."""
    return scene.truth[SYNCED - 1].end if scene.truth[SYNCED - 1] in scene.in_last_file() else HEADER, scene.truth[
        -1
    ].end


def fresh(scene: Scene, tmp_path: pathlib.Path) -> Scene:
    """The same scene in another directory, to be damaged."""
    path = tmp_path / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(scene.path, path)
    return Scene(path, scene.truth, scene.durable, scene.old_sums)


@pytest.mark.parametrize("stop", SCENES[1:3], indirect=True)
@in_parts(4)
def test_recovery_goes_on_from_every_cut(crashed: Scene, tmp_path: pathlib.Path, stop: str, part: int) -> None:
    first, end = not_durable(crashed)
    chance = random.Random(1)
    for size in share(part, stop, first, end + 1):
        scene = fresh(crashed, tmp_path)
        path = last_file(scene.open())
        path.write_bytes(path.read_bytes()[:size])
        recover(scene, size % 3, chance)


@pytest.mark.parametrize("stop", SCENES[2:3], indirect=True)
@in_parts(4)
def test_recovery_goes_on_from_every_flip_of_a_power_cut(
    crashed: Scene, tmp_path: pathlib.Path, stop: str, part: int
) -> None:
    first, end = not_durable(crashed)
    chance = random.Random(2)
    for offset in share(part, stop, first, end):
        scene = fresh(crashed, tmp_path)
        flip(last_file(scene.open()), offset, 1 << offset % 8)
        recover(scene, offset % 3, chance)


@pytest.mark.parametrize("size", [0, 1, HEADER - 1, HEADER, HEADER + 50])
@pytest.mark.parametrize("stop", SCENES[2:3], indirect=True)
def test_recovery_goes_on_from_a_file_that_was_only_begun(
    crashed: Scene, tmp_path: pathlib.Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the checkpoint stands at the very end of the file before: no seek may take that for a fork."""
    for checkpointed in (False, True):
        scene = fresh(crashed, tmp_path)
        if checkpointed:
            with OpenJournal(str(scene.path)) as opened:
                opened.writer.sync()
                opened.save_checkpoint(recorded_sizes(opened.sums.volumes))
            scene.open().save_clean_end(None)
            monkeypatch.setattr(hostinfo, "boot_id", lambda: "yet another")
            shutil.rmtree(scene.old_sums)
            shutil.copytree(scene.path / "sums", scene.old_sums)
        pathlib.Path(scene.open().file_path(scene.truth[-1].position.lsn + 1)).write_bytes(bytes(size))
        recover(scene, 0, random.Random(1))


@pytest.mark.parametrize("stop", SCENES[1:3], indirect=True)
def test_recovery_changes_no_journal_that_is_damaged(crashed: Scene, tmp_path: pathlib.Path) -> None:
    for path in journal_files(crashed.path):
        for offset in range(0, path.stat().st_size, 17):
            scene = fresh(crashed, tmp_path)
            flip(scene.path / "files" / path.name, offset)
            # From the checkpoint on: what lies before it, recovery has no need to read.
            error = read_all(scene.open(), scene.truth[CHECKPOINTED - 1].position).error
            if error is None or isinstance(error, TornJournalError):
                continue
            before = {each: each.read_bytes() for each in journal_files(scene.path)}
            with pytest.raises(type(error)):
                OpenJournal(str(scene.path))
            assert {each: each.read_bytes() for each in journal_files(scene.path)} == before
            assert list((scene.path / "torn").iterdir()) == []


def test_an_operation_outside_the_volumes_is_damage_and_no_bug(tmp_path: pathlib.Path) -> None:
    recording = Recording(tmp_path / "journal", file_bytes=FILE_BYTES)
    append(recording.opened.writer, write_batch(64, 1))
    recording.opened._opened.close()
    with pytest.raises(CorruptJournalError, match="outside the volumes"):
        OpenJournal(str(tmp_path / "journal"))
