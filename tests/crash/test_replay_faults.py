"""Whatever call fails: replay names it, the mirror says truthfully what it is, and the next replay ends right."""

import errno
import itertools
import random
import shutil
from types import SimpleNamespace

import pytest

from mirrortool.errors import HostError, InputOutputError, NoSpaceError
from mirrortool.journal.commits import Until
from mirrortool.mirror.directory import Mirror
from mirrortool.replay import coalesce, delegator
from mirrortool.replay.engine import Plan
from mirrortool.store import flat
from tests.fakes.disk import DROPPED, PowerCut, cut_at, fail_at, faulty
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Resize,
    Write,
    Zero,
    assert_is_commit,
    assert_truthful,
    assert_verifies,
    memory_directory,
    replay_all,
    shrink_pieces,
    verified,
)
from tests.fakes.parts import in_parts

TWO_GROUPS = Plan(groups=2, tasks=2, ranges="equal")
WINDOW = 6 * PAGE
SIZES = {"a": 20 * PAGE, "b": 6 * PAGE + 99}


def page(letter, count=1):
    return letter.encode() * (PAGE * count)


FRAMES = [
    [Write("a", 0, page("A", 4)), Write("b", 1, page("B"))],
    [Commit()],
    [Write("a", 2, page("C", 3)), Write("b", 6, page("D")), Commit("first")],
    [Write("a", 10, page("E", 8)), Zero("a", 1, 1)],
    [Write("b", 0, page("F", 2)), Commit()],
    [Zero("a", 0, 9), Write("a", 3, page("G"))],
    [Commit()],
    [Resize("a", 12 * PAGE + 5), Write("a", 12, page("H")), Write("b", 3, page("I")), Commit()],
    [Resize("a", 30 * PAGE), Write("a", 25, page("J", 5))],
    [Write("a", 12, page("K")), Commit("last")],
]


@pytest.fixture(autouse=True)
def small_scale(monkeypatch):
    """Many windows, many checkpoints, and a ZERO that runs alone."""
    shrink_pieces(monkeypatch)
    monkeypatch.setattr(coalesce, "INLINE_ZERO_BYTES", 5 * PAGE)
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 8)
    monkeypatch.setattr(flat, "RESERVE_MARGIN", 1 << 60)  # always reserve


@pytest.fixture(scope="module")
def made():
    """A journal, and a mirror at one of its earlier commits."""
    with memory_directory() as path:
        maker = JournalMaker(path / "journal", SIZES, file_bytes=2500)
        for frame in FRAMES:
            maker.frame(*frame)
        journal = maker.close()
        replay_all(journal, path / "earlier", until=Until(mark="first"))
        yield SimpleNamespace(path=path, journal=journal, end=maker.commits[-1], mirror=path / "mirror")


def prepare(made, start):
    shutil.rmtree(made.mirror, ignore_errors=True)
    if start:
        shutil.copytree(made.path / start, made.mirror)


def replay(made, read_back=True):
    return replay_all(made.journal, made.mirror, plan=TWO_GROUPS, window_bytes=WINDOW, read_back=read_back)


def finish(made):
    """The next replay ends right, whatever was before."""
    replay(made)
    assert assert_is_commit(made.journal, made.mirror) == made.end
    assert_verifies(made.mirror)


def in_store(call):
    return "/volumes/" in call.path


def in_sums(call):
    return "/sums/" in call.path


def in_checkpoint(call):
    return "checkpoint.json" in call.path


def named(*names):
    return lambda call: call.name in names


def both(one, other):
    return lambda call: one(call) and other(call)


CASES = {
    "EIO writing the store": (errno.EIO, InputOutputError, both(in_store, named("pwritev", "pwrite"))),
    "ENOSPC writing the store": (errno.ENOSPC, NoSpaceError, both(in_store, named("pwritev", "pwrite"))),
    "ENOSPC reserving": (errno.ENOSPC, NoSpaceError, named("reserve")),
    "EIO punching": (errno.EIO, InputOutputError, named("punch")),
    "EIO resizing": (errno.EIO, InputOutputError, both(in_store, named("ftruncate"))),
    "EIO syncing the store": (errno.EIO, InputOutputError, both(in_store, named("fdatasync"))),
    "EIO writing the sums": (errno.EIO, InputOutputError, both(in_sums, named("pwrite", "pwritev"))),
    "ENOSPC writing the sums": (errno.ENOSPC, NoSpaceError, both(in_sums, named("pwrite", "pwritev"))),
    "EIO syncing the sums": (errno.EIO, InputOutputError, both(in_sums, named("fdatasync"))),
    "EIO in the checkpoint": (errno.EIO, InputOutputError, in_checkpoint),
    "ENOSPC in the checkpoint": (errno.ENOSPC, NoSpaceError, in_checkpoint),
    "EDQUOT anywhere": (errno.EDQUOT, HostError, lambda call: "/files/" not in call.path),
}


@pytest.mark.parametrize("start", [None, "earlier"], ids=["fresh", "earlier"])
@pytest.mark.parametrize("case", CASES)
@in_parts(2)
def test_the_kth_call_fails(made, case, start, part):
    """Every other one; of a fresh mirror and of an earlier one not the same."""
    code, kind, wanted = CASES[case]
    for number in itertools.count(1 + (part + (start is None)) % 2, 2):
        prepare(made, start)
        try:
            with faulty(fail_at(number, code, wanted)):
                replay(made)
        except kind:
            if (made.mirror / "mirror.json").exists():
                assert_truthful(made.journal, made.mirror)
            finish(made)
        else:
            assert number > 2, "the fault was never met"
            assert_is_commit(made.journal, made.mirror)
            return


def test_sums_that_find_no_space_before_a_resize_are_not_settled_again(made):
    """Some of them are written then; a second try would take the rest for all, and the segments would be wrong."""
    for number in range(1, 30):
        prepare(made, "earlier")
        with faulty(fail_at(number, errno.ENOSPC, both(in_sums, named("pwrite")))):
            try:
                replay_all(made.journal, made.mirror, plan=TWO_GROUPS)
            except NoSpaceError:
                assert_truthful(made.journal, made.mirror)
        finish(made)


def test_a_full_disk_found_by_reserving_leaves_the_commit_before(tmp_path):
    """No byte of a window changes before there is space for all of it."""
    maker = JournalMaker(tmp_path / "journal", SIZES)
    for number in range(6):
        maker.frame(Write("a", number, page("A", 3)), Write("a", number + 8, page("B")))
        maker.frame(Write("b", number, page("C")), Commit())
    journal, mirror = maker.close(), tmp_path / "mirror"
    left = set()
    for number in range(1, 18):
        shutil.rmtree(mirror, ignore_errors=True)
        fault = fail_at(number, errno.ENOSPC, named("reserve"))
        with faulty(fault), pytest.raises(NoSpaceError, match=r"at LSN|empty"):
            replay_all(journal, mirror, plan=TWO_GROUPS, window_bytes=3000)
        left.add(assert_is_commit(journal, mirror))
        assert_verifies(mirror)
    assert left == {0, *maker.commits[:-1]}


@pytest.mark.parametrize("start", [None, "earlier"], ids=["fresh", "earlier"])
@in_parts(2)
def test_the_power_is_cut_before_the_kth_call(made, start, part):
    """Of what no sync had made durable, any blocks are lost; redo mends every one of them."""
    for number in itertools.count(1 + part, 2):
        prepare(made, start)
        chance = random.Random(number)
        with faulty(cut_at(number)) as system:
            try:
                replay(made)
            except PowerCut:
                pass
            else:
                break
        system.disk.cut_power(chance)
        if (made.mirror / "mirror.json").exists():
            assert_truthful(made.journal, made.mirror)
        if number % 3 == 0:  # a second cut, while redo is at work
            with faulty(cut_at(chance.randrange(1, 60))) as system:
                try:
                    replay(made)
                except PowerCut:
                    system.disk.cut_power(chance)
        finish(made)
    assert number > 50


def replay_with_bad_device(made, number, effect):
    """Let the k-th write of the store come out wrong; the error, or None."""
    prepare(made, "earlier")
    with faulty(nth(number, both(in_store, named("pwritev", "pwrite")), lambda: effect)):
        try:
            replay(made)
        except InputOutputError as error:
            return error
    return None


def corrupt(buffers):
    data = bytearray(b"".join(buffers))
    data[len(data) // 2] ^= 4
    return [data]


@pytest.mark.parametrize("effect", [DROPPED, corrupt], ids=["drops", "corrupts"])
def test_a_device_that_drops_or_corrupts_a_write_is_found(made, effect):
    """It says that it wrote: reading back finds it before a checkpoint names the page."""
    found = 0
    for number in range(1, 16):
        error = replay_with_bad_device(made, number, effect)
        checkpoint = Mirror(str(made.mirror)).checkpoint
        assert checkpoint.is_consistent == (error is None)
        if error is None:
            assert_is_commit(made.journal, made.mirror)  # a later write had covered it, or there was no such write
        else:
            assert "read back" in str(error) and "rolling forward" in error.remedy
            found += 1
        finish(made)
    assert found > 5


def test_without_reading_back_a_dropped_write_is_left_to_verify(made):
    prepare(made, "earlier")
    with faulty(nth(1, both(in_store, named("pwritev", "pwrite")), lambda: DROPPED)):
        replay(made, read_back=False)
    assert verified(made.mirror).bad_pages


def nth(number, wanted, effect):
    """What happens to the k-th of the wanted calls."""
    seen = 0

    def fault(call):
        nonlocal seen
        seen += wanted(call)
        return effect() if wanted(call) and seen == number else None

    return fault
