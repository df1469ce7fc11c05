"""A journal is untrusted input: sound checksums, absurd operations.

Nothing is written outside the volumes, memory and time are bounded, and what it ends with is a named error or a mirror.
"""

import json
import resource
import subprocess
import sys
import time
from array import array

import pytest

from mirrortool.cli.main import main
from mirrortool.errors import (
    CorruptJournalError,
    HostError,
    InputOutputError,
    JournalError,
    MirrortoolError,
    NewerJournalError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.codec import Stored
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import Batch, BatchBuilder, CommitKind, Kind
from tests.fakes.journals import (
    PAGE,
    Commit,
    JournalMaker,
    Write,
    Zero,
    assert_is_commit,
    assert_truthful,
    images_of,
    memory_directory,
    replay_all,
)

SIZE = 8 * PAGE
SECONDS_MAX = 30
BYTES_MAX = 1 << 30


@pytest.fixture
def maker():
    """A journal with one honest commit, in a directory with a file that nobody may touch."""
    with memory_directory() as path:
        (path / "precious").write_bytes(b"precious" * 100)
        maker = JournalMaker(path / "journal", {"a": SIZE, "b": SIZE})
        maker.frame(Write("a", 0, b"A" * PAGE), Commit())
        maker.path = path
        yield maker


def batch(*operations, payload=b"", sums=None, commit=True):
    """A batch of (kind, page, count) as it is, and a commit."""
    rows = [*operations, *([(Kind.COMMIT, CommitKind.FLUSH, 0)] if commit else [])]
    kinds, pages, counts = zip(*rows, strict=True)
    builder = BatchBuilder(PAGE)
    if payload and sums is None:
        builder.write(0, payload)
        sums = builder.build().sums
    return Batch(bytes(kinds), array("Q", pages), array("Q", counts), sums or b"", payload)


def replay_expecting(maker, error, again=(11, 30, 31, 32)):
    """Replay; the mirror is at the honest commit, or says that it rolls forward, and nothing else was touched.

    Args:
        again: exit codes of which a second replay has one.
    """
    journal = maker.close()
    mirror = maker.path / "mirror"
    before = sorted(entry.name for entry in maker.path.iterdir())
    started = time.monotonic()
    with pytest.raises(error) as caught:
        replay_all(journal, mirror)
    assert time.monotonic() - started < SECONDS_MAX
    assert sorted(entry.name for entry in maker.path.iterdir()) == sorted([*before, "mirror"])
    assert sorted(entry.name for entry in (mirror / "volumes").iterdir()) == ["a.img", "b.img"]
    assert (maker.path / "precious").read_bytes() == b"precious" * 100
    assert main(["replay", journal.path, str(mirror), "--quiet"]) in again
    assert main(["verify", str(mirror), "--quiet"]) in (0, 3)
    return caught.value


B = 1 << 48 - 9  # the first page of the second volume
OUTSIDE = {
    "one page behind the volume": (Kind.WRITE, 8, 1),
    "across the end": (Kind.WRITE, 7, 2),
    "between two volumes": (Kind.WRITE, B - 1, 1),
    "from one volume into the next": (Kind.ZERO, 0, B + 1),
    "the last page of the space": (Kind.ZERO, (1 << 62 - 9) - 1, 1),
    "a ZERO of the whole space": (Kind.ZERO, 0, 1 << 62 - 9),
    "RESIZE of no volume": (Kind.RESIZE, 5, PAGE),
    "RESIZE into the next volume": (Kind.RESIZE, 0, (1 << 48) + 1),
    "RESIZE beyond the space": (Kind.RESIZE, B, 1 << 62),
    "RESIZE to the largest number": (Kind.RESIZE, B, (1 << 64) - 1),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_an_operation_outside_the_volumes_is_corruption(maker, case):
    kind, page, count = OUTSIDE[case]
    payload = b"X" * (PAGE * count) if kind == Kind.WRITE else b""
    maker.append(batch((kind, page, count), payload=payload))
    replay_expecting(maker, CorruptJournalError)
    assert assert_is_commit_of_honest(maker) == 2


def assert_is_commit_of_honest(maker):
    checkpoint = Mirror(str(maker.path / "mirror")).checkpoint
    assert checkpoint.is_consistent
    assert images_of(maker.path / "mirror") == {"a": b"A" * PAGE + bytes(SIZE - PAGE), "b": bytes(SIZE)}
    return checkpoint.position.lsn


@pytest.mark.parametrize(
    "operation",
    [
        (Kind.WRITE, (1 << 64) - 1, 1),
        (Kind.WRITE, 0, (1 << 64) - 1),
        (Kind.ZERO, (1 << 64) - 1, (1 << 64) - 1),
        (Kind.ZERO, 0, 0),
        (Kind.WRITE, 0, 0),
        (Kind.COMMIT, 1, 0),
        (Kind.MARK, 1, 0),
    ],
)
def test_an_operation_that_no_recorder_writes_is_corruption(maker, operation):
    maker.append(batch(operation, payload=b"X" * PAGE))
    replay_expecting(maker, JournalError)
    assert assert_is_commit_of_honest(maker) == 2


@pytest.mark.parametrize("kind", [0, 6, 255])
def test_an_operation_of_a_kind_that_is_not_known_may_be_of_a_later_version(maker, kind):
    maker.append(batch((kind, 0, 1), payload=b"X" * PAGE))
    replay_expecting(maker, NewerJournalError, again=(NewerJournalError.exit_code,))
    assert assert_is_commit_of_honest(maker) == 2


@pytest.mark.parametrize(
    "pages",
    [0, 1, 3, (1 << 32) - 1],
)
def test_counts_that_do_not_add_up_are_corruption(maker, pages):
    """The header's page count, the sums and the payload, each with its own idea."""
    wrong = batch((Kind.WRITE, 0, 2), payload=b"X" * (2 * PAGE), sums=bytes(8 * min(pages, 4)))
    maker.append(wrong)
    replay_expecting(maker, JournalError)
    assert assert_is_commit_of_honest(maker) == 2


def test_an_lz4_bomb_is_refused(maker):
    """A block that claims to expand to more than its pages, or to another length."""
    honest = batch((Kind.WRITE, 0, 2), payload=b"X" * (2 * PAGE))
    bomb = b"\x1fX\x01\x00" + b"\xff" * 5000 + b"\x00\x50XXXXX"
    maker.writer.append(honest, captured=True, state_sum=0, stored=Stored(layout.CODEC_LZ4, bomb[:900]))
    maker.writer.sync()
    replay_expecting(maker, JournalError)
    assert assert_is_commit_of_honest(maker) == 2


def test_wrong_page_sums_are_an_error_and_no_commit(maker):
    maker.append(batch((Kind.WRITE, 1, 1), payload=b"X" * PAGE, sums=b"12345678"))
    replay_expecting(maker, InputOutputError)
    assert not Mirror(str(maker.path / "mirror")).checkpoint.is_consistent


def test_a_wrong_state_sum_is_an_error_and_no_commit(maker):
    maker.append(batch((Kind.WRITE, 1, 1), payload=b"X" * PAGE), state_sum=1)
    replay_expecting(maker, CorruptJournalError, again=(21,))  # then nothing in the mirror tells who is wrong
    assert not Mirror(str(maker.path / "mirror")).checkpoint.is_consistent


def test_a_commit_that_claims_the_future_was_durable_is_damage(maker):
    maker.frame(Write("a", 1, b"B" * PAGE))
    maker.append(Batch(bytes([Kind.COMMIT]), array("Q", [1]), array("Q", [(1 << 64) - 1])))
    maker.abandon()
    with pytest.raises(JournalError):
        replay_all(maker.journal, maker.path / "mirror")
    assert_truthful(maker.journal, maker.path / "mirror")


def run_limited(maker, *extra):
    """Replay in a process with little memory and time; (exit code, stderr, seconds, peak bytes)."""
    journal, mirror = maker.close(), maker.path / "mirror"
    code = (
        "import resource, sys; from mirrortool.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
        "sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "replay", journal.path, str(mirror), "--quiet", *extra],
        capture_output=True,
        text=True,
        timeout=4 * SECONDS_MAX,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * BYTES_MAX, 2 * BYTES_MAX)),
    )
    return done.returncode, done.stderr, time.monotonic() - started, int(done.stdout.split()[-1])


def test_a_resize_to_an_exbibyte(maker):
    """Nobody allowed that much, so it is refused before anything is changed."""
    maker.append(batch((Kind.RESIZE, B, 1 << 60)), state_sum=1)
    code, stderr, seconds, peak = run_limited(maker)
    assert code == 20, stderr
    assert "Traceback" not in stderr
    assert seconds < SECONDS_MAX
    assert peak < BYTES_MAX


def test_a_million_zero_operations(maker):
    for _ in range(16):
        maker.append(batch(*[(Kind.ZERO, 1, 7)] * (layout.OPERATIONS_MAX - 1)))
    code, stderr, seconds, peak = run_limited(maker)
    assert (code, stderr) == (0, "")
    assert seconds < SECONDS_MAX
    assert peak < BYTES_MAX


@pytest.mark.parametrize("pages", [100, 1 << 16, (64 << 20) // PAGE, (64 << 20) // PAGE + 1])
def test_many_zeros_of_a_huge_volume(maker, pages):
    """A few bytes in the journal name terabytes; only what is allocated may cost."""
    size = 1 << 42
    maker.append(batch((Kind.RESIZE, B, size), commit=False), state_sum=1)
    zeros = [(Kind.ZERO, B + number * pages, pages) for number in range(4000)]
    maker.append(batch(*zeros), state_sum=resized_state_sum(maker, size))
    code, stderr, seconds, peak = run_limited(maker)
    assert code == 0, stderr
    assert seconds < SECONDS_MAX, seconds
    assert peak < BYTES_MAX, peak
    checkpoint = json.loads((maker.path / "mirror" / "checkpoint.json").read_text())
    assert checkpoint["sizes"]["b"] == size


def resized_state_sum(maker, size):
    volume = maker.volumes["b"]
    return maker._state_sum ^ volume.term ^ maker.volumes.resized(volume, size)["b"].term


def test_overlapping_zeros_of_a_huge_volume(maker):
    size = 1 << 42
    maker.append(batch((Kind.RESIZE, B, size), commit=False), state_sum=1)
    zeros = [(Kind.ZERO, B + number, (32 << 20) // PAGE) for number in range(4000)]
    maker.append(batch(*zeros), state_sum=resized_state_sum(maker, size))
    code, stderr, seconds, peak = run_limited(maker)
    assert code == 0, stderr
    assert seconds < SECONDS_MAX, seconds
    assert peak < BYTES_MAX, peak


def test_a_frame_that_resizes_forever(maker):
    resizes = [(Kind.RESIZE, 0, SIZE + number % 5 * PAGE) for number in range(1000)]
    maker.append(batch(*resizes), state_sum=1)
    code, stderr, seconds, peak = run_limited(maker)
    assert code == 11, stderr
    assert seconds < SECONDS_MAX
    assert peak < BYTES_MAX


def test_a_mirror_never_follows_a_symbolic_link_out_of_a_volume_name(maker):
    """Names come from the journal's owner: one that is a path is no volume name."""
    described = maker.path / "journal" / "journal.json"
    maker.close()
    for name in ("../precious", "/etc/passwd", "..", "a/b", "", "a\0"):
        values = json.loads(described.read_text())
        values["volumes"][0]["name"] = name
        described.write_text(json.dumps(values))
        with pytest.raises(MirrortoolError):
            replay_all(str(maker.path / "journal"), maker.path / "mirror")
    assert (maker.path / "precious").read_bytes() == b"precious" * 100
    assert not (maker.path / "mirror").exists()


def test_operations_of_every_honest_kind_are_not_refused(maker):
    """The other tests would pass if everything were refused."""
    maker.frame(Zero("b", 0, 8), Write("b", 7, b"Z" * PAGE), Commit())
    journal = maker.close()
    replay_all(journal, maker.path / "mirror")
    assert assert_is_commit(journal, maker.path / "mirror") == 5


def test_host_errors_stay_named(maker):
    """The journal's owner may also be out of luck: an unreadable journal file is no bug."""
    journal = maker.close()
    (maker.path / "journal" / "files" / f"{1:016x}.mj").unlink()
    (maker.path / "journal" / "files" / f"{1:016x}.mj").mkdir()
    with pytest.raises((HostError, JournalError)):
        replay_all(journal, maker.path / "mirror")
