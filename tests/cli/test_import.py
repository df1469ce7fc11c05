"""`mirrortool import`: what it prints, what it refuses, and that a mirror of each commit is the log's state there."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.cli.main import main
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.operation import CommitKind
from tests.fakes.daemon import Daemon
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import fast_directory, inside_fast_directory
from tests.record.importers.logs import (
    DISCARD,
    FLUSH,
    FUA,
    MARK,
    Logged,
    State,
    fio_data,
    log_bytes,
    states_of,
    without_repeats,
    written,
)

Capture = pytest.CaptureFixture[str]
SIZE = 48 * 1024 + 512
"""Not whole pages."""
SECTORS = SIZE // 512
FAST = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with fast_directory() as directory:
        monkeypatch.chdir(directory)
        yield Path(directory)


def make_journal(*volumes: str, name: str = "J") -> None:
    assert main(["init", "-q", name, *(f"{volume}={name}-{volume}.img:{SIZE}" for volume in volumes)]) == 0
    assert main(["record", "-q", name]) == 0


def flushes(journal: str) -> list[State]:
    """The volumes at each commit of an import, from the journal alone."""
    opened = Journal(journal)
    return [
        State(tuple(volumes_at(opened, commit.lsn).values()), commit.name)
        for commit in commits(opened)
        if commit.kind == CommitKind.FLUSH
    ]


def run_json(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["import", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: Capture, code: int, *arguments: str) -> str:
    """The one line that it ends with."""
    capsys.readouterr()
    assert main(["import", *arguments]) == code
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1
    return printed.err.removeprefix("mirrortool: ").strip()


ENTRIES = [
    Logged(0, 8, 0, b"a" * 4096),
    Logged(3, 1, FLUSH, b"b" * 512),
    Logged(flags=MARK, text=b"made it"),
    Logged(2, 20, DISCARD),
    Logged(SECTORS - 3, 3, FUA, b"c" * 1536),
    Logged(flags=MARK, text=b"done"),
    Logged(0, 1, 0, b"d" * 512),
]


def test_what_is_printed(place: Path, capsys: Capture) -> None:
    make_journal("disk")
    capsys.readouterr()
    assert main(["import", "J", written(place / "log", log_bytes(ENTRIES)), "--format", "logwrites"]) == 0
    printed = capsys.readouterr()
    lsn = max(commit.lsn for commit in commits(Journal("J")))
    assert printed.out.splitlines() == [
        f"commit at LSN {lsn}  7 entries: 4 writes, 6.5 KiB, 1 zeroed, 3 commits, 2 marks",
        "mark made-it is what the log calls 'made it'",
    ]
    assert printed.err == "next: mirrortool replay J MIRROR\n"


def test_json(place: Path, capsys: Capture) -> None:
    make_journal("disk")
    found = run_json(capsys, "J", written(place / "log", log_bytes(ENTRIES)), "--format", "logwrites", "-q")
    newest = list(commits(Journal("J")))[-1]
    assert found == {
        "entries": 7,
        "writes": 4,
        "bytes": 6656,
        "zeros": 1,
        "commits": 3,
        "marks": 2,
        "marks_renamed": 1,
        "renamed": [{"text": "made it", "name": "made-it"}],
        "lsn": newest.lsn,
        "chain": f"{newest.position.chain:016x}",
    }


def test_mirror_of_each_commit_is_the_state_there(place: Path) -> None:
    make_journal("disk")
    assert main(["import", "-q", "J", written(place / "log", log_bytes(ENTRIES)), "--format", "logwrites"]) == 0
    states, end = states_of(ENTRIES, SIZE)
    listed = [commit for commit in commits(Journal("J")) if commit.kind == CommitKind.FLUSH]
    expected = without_repeats([*states, State((end,))])
    assert [commit.name for commit in listed] == [None, "made-it", None, "done", None]
    for commit, state in zip(listed, expected, strict=True):
        mirror = f"M{commit.lsn}"
        assert main(["replay", "-q", "J", mirror, "--until", commit.name or str(commit.lsn)]) == 0
        assert Path(mirror, "volumes", "disk.img").read_bytes() == state.images[0]
        assert main(["verify", "-q", mirror]) == 0
    assert Path("J-disk.img").read_bytes() == end
    assert main(["record", "-q", "J"]) == 0, "the volume is as the journal says"


def entry_inside(sector: int, sectors: int, flags: int, seed: int) -> Logged:
    sectors = min(sectors, SECTORS - sector)
    flags = flags if sectors or flags else FLUSH
    data = b"" if flags & DISCARD else bytes([seed]) * (sectors * 512)
    return Logged(sector, sectors, flags, data, b"m" if flags & MARK else b"")


@FAST
@given(
    st.lists(
        st.builds(
            entry_inside,
            st.integers(0, SECTORS - 1),
            st.integers(0, 40),
            st.sampled_from([0, 0, 0, 0, FLUSH, FUA, DISCARD, DISCARD, MARK]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_journal_and_volume_are_the_serial_model(entries: list[Logged]) -> None:
    """With the recorder and a journal of its own; twice, as a log may be imported again."""
    states, end = states_of(entries, SIZE)
    with inside_fast_directory():
        make_journal("disk")
        path = written(Path("log"), log_bytes(entries))
        assert main(["import", "-q", "J", path, "--format", "logwrites"]) == 0
        found = flushes("J")
        assert without_repeats(found) == without_repeats([*states, State((end,))])
        assert Path("J-disk.img").read_bytes() == end
        assert main(["import", "-q", "J", path, "--format", "logwrites"]) == 0
        assert Path("J-disk.img").read_bytes() == volumes_at(Journal("J"))["disk"] == end


FIO = b"""fio version 3 iolog
0 /images/a add
1 /images/a open
2 /images/a write 512 1000
3 /elsewhere write 0 4096
4 /images/a sync 0 0
5 /elsewhere trim 0 512
6 /images/a close
"""


def test_log_of_fio(place: Path, capsys: Capture) -> None:
    make_journal("a", "b")
    path = written(place / "log", FIO)
    found = run_json(capsys, "J", path, "--format", "fio", "--map", "/elsewhere=b", "--seed", "3")
    expected = {"entries": 8, "writes": 2, "bytes": 5096, "zeros": 1, "commits": 2, "marks": 0}
    assert {name: found[name] for name in expected} == expected
    a = bytes(512) + fio_data(3, 4, 512, 1000)
    b = fio_data(3, 5, 0, 4096)
    first, last = flushes("J")
    assert first.images == (a.ljust(SIZE, b"\0"), b.ljust(SIZE, b"\0"))
    assert last.images == (first.images[0], bytes(512) + first.images[1][512:])
    make_journal("a", "b", name="K")
    assert main(["import", "-q", "K", path, "--format", "fio", "--volume", "b", "--seed", "3"]) == 0
    assert flushes("K") == [first, last]


def test_seed_is_zero_by_default(place: Path) -> None:
    make_journal("disk")
    path = written(place / "log", b"fio version 2 iolog\n/x write 0 4096\n")
    assert main(["import", "-q", "J", path, "--format", "fio"]) == 0
    assert Path("J-disk.img").read_bytes()[:4096] == fio_data(0, 2, 0, 4096)


# What is refused.


@pytest.fixture
def refusing(place: Path) -> Iterator[None]:
    """A journal of two volumes that must not change."""
    make_journal("a", "b")
    written(place / "log", log_bytes(ENTRIES))
    written(place / "cut", log_bytes(ENTRIES)[:-512])
    written(place / "large", log_bytes([Logged(0, 1, 0, b"x" * 512), Logged(SECTORS, 1, DISCARD)]))
    written(place / "fio", FIO)
    written(place / "bad", FIO + b"7 /images/a write 0\n")
    yield
    assert not any(flushes("J")) and Path("J-a.img").read_bytes() == bytes(SIZE)


REFUSED = [
    (2, "J log --format logwrites", "the journal has 2 volumes; name the one that was logged with --volume"),
    (2, "J log --format logwrites --volume c", "the journal has no volume c"),
    (2, "J log --format logwrites --volume a --map x=a", "--map and --seed are for --format fio"),
    (2, "J log --format logwrites --volume a --seed 1", "--map and --seed are for --format fio"),
    (2, "J fio --format fio", "line 5: no volume stands for /elsewhere; give --map FILE=VOLUME"),
    (2, "J fio --format fio --map /elsewhere=c", "the journal has no volume c"),
    (2, "J fio --format fio --map x=a --map x=b", "a file is named twice by --map"),
    (2, "J fio --format fio --map /elsewhere", "'/elsewhere' is not FILE=VOLUME"),
    (2, "J fio --format fio --seed -1", "-1 is not in the range"),
    (2, "J fio --format tar", "'tar' is not one of 'logwrites', 'fio'"),
    (2, "J fio", "Missing option '--format'"),
    (14, "nothing log --format logwrites", "nothing"),
    (
        20,
        "J large --format logwrites --volume a",
        "large: entry 1 at byte 1536 reaches to byte 50176, and volume a has",
    ),
    (32, "J nothing --format logwrites --volume a", "nothing: cannot open: No such file or directory"),
    (32, "J . --format logwrites --volume a", "is a directory, and a log"),
    (60, "J fio --format logwrites --volume a", "fio: not a dm-log-writes log"),
    (60, "J log --format fio", "log: not a log of fio's, version 2 or 3"),
    (60, "J cut --format logwrites --volume a", "cut: entry 6 at byte 9728: it has 512 bytes of data"),
    (60, "J bad --format fio --volume b", "bad: line 9: it is not FILE ACTION OFFSET LENGTH"),
    (32, "J /dev/zero --format fio", "is a character device, and a log is read twice"),
]


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED)
def test_refused(capsys: Capture, code: int, line: str, phrase: str) -> None:
    assert phrase in refusal(capsys, code, *line.split())


def test_volume_without_a_base_gets_one(place: Path) -> None:
    """What it held before the import is in the journal, too."""
    Path("disk.img").write_bytes(b"before" * 1024)
    assert main(["init", "-q", "J", "disk=disk.img"]) == 0
    path = written(place / "log", log_bytes([Logged(1, 1, 0, b"a" * 512), Logged(flags=MARK, text=b"done")]))
    assert main(["import", "-q", "J", path, "--format", "logwrites"]) == 0
    expected = (b"before" * 1024)[:512] + b"a" * 512 + (b"before" * 1024)[1024:]
    assert Path("disk.img").read_bytes() == volumes_at(Journal("J"))["disk"] == expected
    assert list(commits(Journal("J")))[-1].name == "done"


def test_text_of_a_mark_commands_no_terminal(place: Path, capsys: Capture) -> None:
    make_journal("disk")
    path = written(place / "log", log_bytes([Logged(flags=MARK, text=b"\x1b[2J[red]\xff")]))
    capsys.readouterr()
    assert main(["import", "J", path, "--format", "logwrites"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[red]" in out


# Stopping.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_a_journal_that_is_whole(place: Path, number: signal.Signals) -> None:
    """A log too large to be done before the signal comes; what is left is a prefix of it, and can be imported again."""
    volume_bytes = 64 << 20
    assert main(["init", "-q", "J", f"disk=disk.img:{volume_bytes}"]) == main(["record", "-q", "J"]) == 0
    line = b"/x write %d 1048576\n"
    text = b"fio version 2 iolog\n" + b"".join(line % ((at << 20) % volume_bytes) for at in range(20_000))
    path = written(place / "log", text)
    with Daemon("import", "J", path, "--format", "fio") as importing:
        importing.wait_until(lambda: any(commit.kind != CommitKind.SCAN for commit in commits(Journal("J"))))
        importing.stop(number, 128 + number)
    said = "\n".join(importing.lines)
    assert "stopped at line" in said and "import it again" in said
    done = int(said.partition("stopped at line ")[2].partition(";")[0])
    image = Path("disk.img").read_bytes()
    assert image == volumes_at(Journal("J"))["disk"]
    newest = done - 2  # of the writes, the first being in line 2
    offset = (newest << 20) % volume_bytes
    following = fio_data(0, done + 1, offset + (1 << 20), 1 << 20)
    assert image[offset : offset + (1 << 20)] in (fio_data(0, done, offset, 1 << 20), following)
    assert main(["record", "-q", "J"]) == 0, "a clean stop"
