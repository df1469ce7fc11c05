"""`serve` as a person meets it: what is refused, in one line and with its code; what clients see; how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.mirror.directory import Mirror
from mirrortool.nbd.protocol import Command
from mirrortool.operation import CommitKind
from mirrortool.sockets.addresses import UnixAddress
from tests.fakes.journals import Commit, Write, Zero, make_journal, replay_all
from tests.fakes.live import LiveRecorder
from tests.fakes.served import Served
from tests.fakes.volumes import inside_fast_directory
from tests.nbd.wire import Client

PAGE = 512
PAGES = 64
SIZE = PAGES * PAGE
Capture = pytest.CaptureFixture[str]


def build() -> None:
    """In the current directory: journals of each kind of commit, a mirror, and one that is between two commits."""
    old, new = b"o" * SIZE, b"n" * 3 * PAGE
    frames = [[Write("disk", 0, old), Commit("old")], [Write("disk", 5, new), Commit()]]
    journal = make_journal("J", {"disk": SIZE}, frames)
    replay_all(journal, "M")
    replay_all(journal, "between")
    mirror = Mirror("between")
    path = Path("between/checkpoint.json")
    text = path.read_text().replace(f'"reached_lsn": {mirror.checkpoint.reached_lsn}', '"reached_lsn": 99')
    path.write_text(text)
    make_journal("incomplete", {"disk": SIZE}, [[Write("disk", 0, old), Commit(kind=CommitKind.INCOMPLETE)]])
    make_journal("fuzzy", {"disk": SIZE}, [[Write("disk", 0, old), Commit(kind=CommitKind.FUZZY)]])
    make_journal("empty", {"disk": SIZE}, [])
    make_journal("rotten", {"disk": SIZE}, [[Write("disk", 0, old), Commit()], [Zero("disk", 0, 1), Commit()]])
    damage("rotten/files/0000000000000001.mj")
    os.mkdir("directory")
    Path("file").write_bytes(b"no socket")


def damage(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    with inside_fast_directory() as directory:
        build()
        yield directory


@pytest.fixture
def here(built: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(built)
    return Path(built)


REFUSED = [
    (2, "serve J", "--nbd"),
    (2, "serve J --nbd nonsense", "unix:PATH"),
    (2, "serve J --nbd tcp:127.0.0.1:0", "--insecure"),
    (2, "serve J --nbd unix:file", "not a socket"),
    (2, "serve J --nbd unix:s --tls-anonymous", "--tls-certificates"),
    (2, "serve J --nbd unix:s --max-memory 1M", "64 clients need 2M"),
    (2, "serve J --nbd unix:s --socket-mode 999", "is not a mode"),
    (2, "serve J --nbd unix:s --socket-group no-such-group", "no-such-group"),
    (2, "serve J --nbd unix:s --scratch directory", "--writable"),
    (2, "serve J --nbd unix:s --scratch-size 1M", "--writable"),
    (2, "serve J --nbd unix:s --until nowhere", "no mark nowhere"),
    (2, "serve J --nbd unix:s --until 99", "above the newest"),
    (2, "serve M --nbd unix:s --until old", "name its journal"),
    (2, "unit serve J --nbd unix:s", "choose record or replay or ship"),
    (32, "serve J --nbd unix:missing/s", "No such file"),
    (32, "serve J --nbd unix:s --writable --scratch missing", "missing"),
    (32, "serve J --nbd tcp:127.0.0.1:0 --tls-certificates directory", "server-cert.pem"),
    (3, "serve incomplete --nbd unix:s --allow-fuzzy", "incomplete"),
    (3, "serve empty --nbd unix:s", "no commit yet"),
    (3, "serve between --nbd unix:s", "rolling forward"),
    (25, "serve fuzzy --nbd unix:s", "--allow-fuzzy"),
    (11, "serve rotten --nbd unix:s", "rotten/files/0000000000000001.mj"),
    (14, "serve missing --nbd unix:s", "does not exist"),
    (14, "serve directory --nbd unix:s", "not a journal or a mirror"),
    (14, "serve J/files --nbd unix:s", "lies inside "),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED, ids=map(str, range(len(REFUSED))))
@pytest.mark.usefixtures("here")
def test_refused(code: int, line: str, phrase: str, capsys: Capture) -> None:
    capsys.readouterr()
    before = sorted(os.listdir())
    assert main(line.split(" ")) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("mirrortool: ") and phrase in told[0], told
    assert sorted(os.listdir()) == before
    assert not list(Path().rglob("*.hold"))


@pytest.mark.usefixtures("here")
def test_a_scratch_is_not_put_beside_the_journal_by_itself(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("TMPDIR", str(here))
    assert main(["serve", "J", "--nbd", "unix:s", "--writable"]) == 2
    assert f"--scratch {here}" in capsys.readouterr().err


def get(client: Client, offset: int, length: int) -> bytes:
    assert client.do(Command.READ, offset, length).error == 0
    return client.receive(length)


def client_of(served: Served) -> Client:
    client = Client(UnixAddress(str(served.socket)))
    client.go("disk")
    return client


OLD = b"o" * SIZE
NEW = b"o" * 5 * PAGE + b"n" * 3 * PAGE + b"o" * (SIZE - 8 * PAGE)


@pytest.mark.parametrize(
    ("path", "options", "content"), [("J", ("--until", "old"), OLD), ("J", (), NEW), ("M", (), NEW)]
)
def test_clients_see_the_commit_and_cannot_change_it(
    here: Path, path: str, options: tuple[str, ...], content: bytes
) -> None:
    served = Served(here / path, here / "s", *options)
    with served, client_of(served) as client:
        assert get(client, 0, SIZE) == content
        assert client.do(Command.WRITE, 0, PAGE, data=b"x" * PAGE).error == errno.EPERM
    lines = "\n".join(served.lines)
    assert f"serving volume disk at {served.uri()}, as of LSN " in lines and "read-only" in lines
    assert (" old of 20" in lines) == bool(options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(here: Path, number: int) -> None:
    served = Served(here / "J", here / "s", "--json", "--writable", "--scratch", here, "--scratch-size", "64K")
    served.start()
    with client_of(served) as client:
        assert client.do(Command.WRITE, 1, PAGE, data=b"x" * PAGE).error == 0
        assert get(client, 0, 2) == b"ox"
        told = json.loads(served.stop(number))
    assert told["is_writable"] and told["bytes_written"] == PAGE and told["scratch_bytes"] == 2 * PAGE
    assert (told["path"], told["mark"], told["is_fuzzy"]) == (str(here / "J"), None, False)
    assert not served.socket.exists()


def test_nothing_is_left_of_what_was_written_when_it_is_killed(here: Path) -> None:
    scratch = here / "scratch"
    scratch.mkdir()
    served = Served(here / "J", here / "s", "--writable", "--scratch", scratch)
    served.start()
    with client_of(served) as client:
        assert client.do(Command.WRITE, 0, 40 * PAGE, data=b"x" * 40 * PAGE).error == 0
        assert client.do(Command.FLUSH).error == 0
        assert os.listdir(scratch) == []
        opened = [os.readlink(each) for each in Path(f"/proc/{served.process.pid}/fd").iterdir()]
        assert any(each.startswith(str(scratch)) and each.endswith("(deleted)") for each in opened)
        served.kill()
    assert os.listdir(scratch) == []
    with served, client_of(served) as client:
        assert get(client, 0, SIZE) == NEW
    scratch.rmdir()


def test_a_fuzzy_commit_is_shown_with_a_warning(here: Path) -> None:
    with Served(here / "fuzzy", here / "s", "--allow-fuzzy") as loud, client_of(loud) as client:
        assert get(client, 0, SIZE) == OLD
    assert any("WARNING: LSN" in line and "FUZZY" in line for line in loud.lines)


def test_what_is_recorded_meanwhile_is_not_seen(tmp_path: Path) -> None:
    """A commit of a running recorder's journal; a server that is killed disturbs nobody."""
    size = 4 << 20
    assert main(["init", str(tmp_path / "J"), f"disk={tmp_path}/disk.img:{size}", "-q"]) == 0
    with LiveRecorder(tmp_path / "J") as live:
        live.wait_for_base()
        with Client(UnixAddress(str(live.socket))) as writer:
            writer.go("disk")
            assert writer.do(Command.WRITE, 0, 4096, data=b"1" * 4096).error == 0
            assert main(["mark", str(tmp_path / "J"), "first", "-q"]) == 0
            served = Served(tmp_path / "J", tmp_path / "then", "--until", "first")
            with served, client_of(served) as reader:
                for number in range(50):
                    data = bytes([number]) * 4096
                    assert writer.do(Command.WRITE, number * 4096, 4096, data=data).error == 0
                    assert get(reader, number * 4096, 4096) == (b"1" if not number else b"\0") * 4096
                assert writer.do(Command.FLUSH).error == 0
                assert get(reader, 0, 4096) == b"1" * 4096
                served.kill()
    assert main(["verify", str(tmp_path / "J"), "-q"]) == 0
