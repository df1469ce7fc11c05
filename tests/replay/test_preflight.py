"""Before its first write, replay notices that somebody wrote behind its back."""

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import ChangedOutsideError
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.openvolumes import open_store
from mirrortool.replay.preflight import find_changed_page
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, images_of, replay_all


@pytest.fixture
def made(tmp_path):
    """A journal with a mirror at its first commit."""
    maker = JournalMaker(tmp_path / "journal", {"a": 5000 * PAGE, "b": 3 * PAGE + 7})
    maker.frame(*(Write("a", page, bytes([page % 255 + 1]) * PAGE) for page in range(100, 400)), Commit())
    replay_all(maker.journal, tmp_path / "mirror")
    maker.frame(Write("a", 4999, b"e" * PAGE), Commit())
    return maker.close(), tmp_path / "mirror"


def open_and_find(mirror):
    opened = Mirror(str(mirror))
    store, sums = open_store(opened, write=False), opened.open_sums(write=False)
    try:
        return find_changed_page(store, sums)
    finally:
        store.close()
        sums.close()


def overwrite(mirror, volume, offset, data):
    with open(mirror / "volumes" / f"{volume}.img", "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_an_untouched_mirror_passes(made):
    assert open_and_find(made[1]) is None


@pytest.mark.parametrize("page", [0, 5000 * 3 // 64, 5000 * 63 // 64])
def test_a_page_among_the_samples_is_noticed(made, page):
    """The first page is always looked at, and others are, spread over the volume."""
    overwrite(made[1], "a", page * PAGE, b"intruder")
    assert open_and_find(made[1]) == page


def test_what_is_allocated_is_looked_at(tmp_path):
    """A few pages in a large volume are among the samples although those are far apart."""
    maker = JournalMaker(tmp_path / "journal", {"a": 1 << 30})
    maker.frame(Write("a", 1 << 20, b"a" * (512 * PAGE)), Commit())
    replay_all(maker.close(), tmp_path / "mirror")
    assert open_and_find(tmp_path / "mirror") is None
    overwrite(tmp_path / "mirror", "a", (1 << 20) * PAGE, b"intruder")
    assert open_and_find(tmp_path / "mirror") == 1 << 20


def test_a_second_volume_is_looked_at(made):
    journal, mirror = made
    overwrite(mirror, "b", 0, b"x")
    assert open_and_find(mirror) == journal.volumes.first_page(journal.volumes["b"])


def test_a_file_system_made_on_the_mirror_is_noticed(made):
    """Whatever formats or mounts a mirror read-write changes many pages."""
    overwrite(made[1], "a", 0, b"f" * (200 * PAGE))
    assert open_and_find(made[1]) is not None


def test_replay_changes_nothing_then_and_ends_with_21(made):
    journal, mirror = made
    overwrite(mirror, "a", 0, b"intruder")
    before, checkpoint = images_of(mirror), (mirror / "checkpoint.json").read_bytes()
    with pytest.raises(ChangedOutsideError):
        replay_all(journal, mirror)
    assert main(["replay", journal.path, str(mirror)]) == 21
    assert images_of(mirror) == before
    assert (mirror / "checkpoint.json").read_bytes() == checkpoint


def test_another_length_is_noticed(made):
    journal, mirror = made
    (mirror / "volumes" / "b.img").write_bytes(b"")
    with pytest.raises(ChangedOutsideError):
        replay_all(journal, mirror)


def test_an_empty_volume_has_no_samples(tmp_path):
    maker = JournalMaker(tmp_path / "journal", {"a": 0, "b": PAGE})
    maker.frame(Write("b", 0, b"b" * PAGE), Commit())
    replay_all(maker.journal, tmp_path / "mirror")
    assert open_and_find(tmp_path / "mirror") is None
    maker.frame(Commit())
    replay_all(maker.close(), tmp_path / "mirror")
