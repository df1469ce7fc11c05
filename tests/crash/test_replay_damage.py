"""A journal cut at every byte, or with a bit of it turned: replay gives a commit of the true history, or nothing.

Never another exception than a named one, and never another byte in the mirror. The ordinary suite replays a journal
with every fourth byte damaged into a fresh mirror or an earlier one, in turn; the soak does what is left:
pytest -m soak tests/crash/test_replay_damage.py
"""

import itertools
import json
import shutil
from types import SimpleNamespace

import pytest

from mirrortool.errors import JournalError, MirrortoolError
from mirrortool.journal.commits import Until
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    images_of,
    memory_directory,
    replay_all,
    set_boot_id,
    shrink_pieces,
)
from tests.fakes.parts import in_parts
from tests.fakes.serial import volumes_at

SIZES = {"a": 6 * PAGE + 100, "b": 3 * PAGE}
FRAMES = [
    [Write("a", 0, b"A" * (2 * PAGE)), Write("b", 1, b"B" * PAGE)],
    [Commit()],
    [Zero("a", 1, 2), Write("a", 6, b"C" * PAGE), Commit("first")],
    [Resize("a", 3 * PAGE + 9), Write("a", 3, b"D" * PAGE), Commit()],
    [Write("b", 0, b"E" * (3 * PAGE))],
    [Resize("a", 8 * PAGE), Write("a", 7, b"F" * PAGE), Commit("second")],
    [Write("a", 5, b"G" * PAGE), Commit()],
    [Write("b", 2, b"H" * PAGE)],  # no commit covers this one
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    shrink_pieces(monkeypatch)


@pytest.fixture(scope="module")
def truth():
    """A journal of several files, a mirror at one of its earlier commits, and what each commit is."""
    with memory_directory() as path:
        maker = JournalMaker(path / "journal", SIZES, file_bytes=500)
        for frame in FRAMES:
            maker.frame(*frame)
        journal = maker.close()
        history = {0: volumes_at(journal, 0)} | {lsn: volumes_at(journal, lsn) for lsn in maker.commits}
        replay_all(journal, path / "earlier", until=Until(mark="first"))
        small = {}
        for boot_id in (journal.recorder_checkpoint().boot_id, "another kernel"):
            set_boot_id(journal, boot_id)
            for clean in (True, False):
                described = json.loads((path / "journal" / "journal.json").read_text())
                described["end"] = described["end"] if clean else None
                recorder = (path / "journal" / "recorder.json").read_bytes()
                small[boot_id == "another kernel", clean] = json.dumps(described).encode(), recorder
        names = [f"files/{name.name}" for name in sorted((path / "journal" / "files").iterdir())]
        assert len(names) >= 4
        yield SimpleNamespace(
            path=path,
            journal=path / "journal",
            small=small,
            names=names,
            history=history,
            files={name: (path / "journal" / name).read_bytes() for name in names},
        )


def is_commit_of(truth, mirror):
    """Whether the mirror holds, byte for byte, the commit that it says; it must say one."""
    checkpoint = Mirror(str(mirror)).checkpoint
    assert checkpoint.is_consistent or not max(checkpoint.position.lsn, checkpoint.reached_lsn), "between two commits"
    assert images_of(mirror) == truth.history[checkpoint.position.lsn]
    return checkpoint.position.lsn


def replay_damaged(truth, small, start):
    """Replay into a fresh mirror, or a copy of the one at an earlier commit; the error, or None."""
    (truth.journal / "journal.json").write_bytes(small[0])
    (truth.journal / "recorder.json").write_bytes(small[1])
    mirror = truth.path / "mirror"
    if start:
        shutil.copytree(truth.path / start, mirror)
    before = is_commit_of(truth, mirror) if start else 0
    error = None
    try:
        replay_all(str(truth.journal), mirror)
    except MirrortoolError as caught:
        error = caught
    if (mirror / "mirror.json").exists():
        assert is_commit_of(truth, mirror) >= before
    shutil.rmtree(mirror, ignore_errors=True)
    return error


def small_files(truth, number):
    """Clean stop or crash, this kernel or another, in turn."""
    return list(truth.small.values())[number % 4]


def cut(data, at):
    return data[:at]


def turned(bit):
    return lambda data, at: data[:at] + bytes([data[at] ^ 1 << (at + bit) % 8]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, turned(0)], ids=["cut", "turned"])
@in_parts(8)
def test_damage_at_every_byte(truth, damage, part):
    errors = 0
    for name in truth.names:
        data = truth.files[name]
        for at in range(len(data)):
            if (at + part // 2) % 4:
                continue
            start = (None, "earlier")[(at // 16 + part) % 2]  # so that each meets all four pairs of small files
            if start and name == truth.names[0]:
                continue  # that mirror does not need the first file any more
            (truth.journal / name).write_bytes(damage(data, at))
            try:
                error = replay_damaged(truth, small_files(truth, at // 4), start)
            finally:
                (truth.journal / name).write_bytes(data)
            assert error is None or isinstance(error, JournalError), error
            errors += error is not None
    assert errors > len(FRAMES)


def test_the_journal_undamaged_is_replayed(truth):
    for small in truth.small.values():
        for start in (None, "earlier"):
            assert replay_damaged(truth, small, start) is None


@pytest.mark.parametrize("start", [None, "earlier"], ids=["fresh", "earlier"])
def test_a_whole_file_missing_or_empty(truth, start):
    """Whatever the small files say, a file that the mirror needs cannot go unnoticed, but for the last."""
    needed = truth.names[1:-1] if start else truth.names[:-1]
    for small, name, left in itertools.product(truth.small.values(), truth.names, (None, 0, 64, 128)):
        data = truth.files[name]
        (truth.journal / name).unlink()
        if left is not None:
            (truth.journal / name).write_bytes(data[:left])
        error = replay_damaged(truth, small, start)
        (truth.journal / name).write_bytes(data)
        assert error is None or isinstance(error, MirrortoolError)
        if name in needed:
            assert isinstance(error, JournalError), f"{name} cut to {left} passed unseen"


def test_files_exchanged_or_repeated(truth):
    """Whole files with sound frames, each in a wrong place."""
    for one, other in itertools.permutations(truth.names, 2):
        (truth.journal / one).write_bytes(truth.files[other])
        starts = [None] if one == truth.names[0] else [None, "earlier"]
        errors = [replay_damaged(truth, small_files(truth, n), start) for n in range(4) for start in starts]
        (truth.journal / one).write_bytes(truth.files[one])
        assert all(isinstance(error, JournalError) for error in errors)


@pytest.mark.parametrize("name", ["journal.json", "recorder.json"])
@pytest.mark.parametrize("damage", [cut, turned(0)], ids=["cut", "turned"])
@in_parts(2)
def test_small_files_damaged_at_every_byte(truth, name, damage, part):
    """They have no checksums: replay may refuse or not notice, but no mirror says that it is what it is not."""
    for clean, start in ((True, None), (False, "earlier")):
        described, recorder = truth.small[True, clean]
        data = described if name == "journal.json" else recorder
        for at in range(part * 2 + (not clean), len(data), 4):
            changed = damage(data, at)
            small = (changed, recorder) if name == "journal.json" else (described, changed)
            mirror = truth.path / "mirror"
            shutil.rmtree(mirror, ignore_errors=True)
            if start:
                shutil.copytree(truth.path / start, mirror)
            (truth.journal / "journal.json").write_bytes(small[0])
            (truth.journal / "recorder.json").write_bytes(small[1])
            try:
                replay_all(str(truth.journal), mirror)
            except MirrortoolError:
                pass
            if (mirror / "mirror.json").exists() and Mirror(str(mirror)).checkpoint.is_consistent:
                position = Mirror(str(mirror)).checkpoint.position
                assert position.lsn == 0 or by_content(images_of(mirror)) == by_content(truth.history[position.lsn])
    described, recorder = truth.small[True, True]
    (truth.journal / "journal.json").write_bytes(described)
    (truth.journal / "recorder.json").write_bytes(recorder)
    assert Journal(str(truth.journal))


def by_content(images):
    """Volumes without their names."""
    return sorted(images.values())
