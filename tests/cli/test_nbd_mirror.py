"""A mirror in an export of an NBD server, through the commands: what they say of it, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirrortool.cli import replayfollow
from mirrortool.cli.main import main
from mirrortool.cli.replayfollow import Following
from mirrortool.errors import ServerError
from mirrortool.journal.directory import Journal
from mirrortool.nbd import clientconnection
from mirrortool.nbd.server import Server
from mirrortool.replay.session import Replay
from tests.fakes.forgetfulexport import ForgetfulExport
from tests.fakes.journals import ONE_TASK, PAGE, Commit, JournalMaker, Resize, Write
from tests.fakes.memory_export import MemoryExport
from tests.fakes.scriptedserver import Peer, Script, scripted
from tests.fakes.unitfiles import settings

Capture = pytest.CaptureFixture[str]
SIZE = 10 * PAGE


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalMaker]:
    """A journal J of a volume a, which is still being written."""
    monkeypatch.chdir(tmp_path)
    maker = JournalMaker("J", {"a": SIZE})
    for n in range(4):
        maker.frame(Write("a", n, bytes([n + 1]) * PAGE), Commit())
    yield maker
    maker.abandon()


@pytest.fixture
def export() -> ForgetfulExport:
    return ForgetfulExport(2 * SIZE)


@pytest.fixture
def uri(tmp_path: Path, export: ForgetfulExport) -> Iterator[str]:
    with Server([export], [f"unix:{tmp_path}/s"], on_event=str):
        yield f"nbd+unix:///disk?socket={tmp_path}/s"


@pytest.fixture
def run(capsys: Capture) -> Callable[..., tuple[str, str]]:
    def run(line: str, code: int = 0) -> tuple[str, str]:
        """What a command prints, and says."""
        capsys.readouterr()
        ended = main(line.split())
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed.out, printed.err

    return run


Run = Callable[..., tuple[str, str]]


@pytest.mark.usefixtures("maker")
def test_what_is_said_of_a_mirror_in_an_export(uri: str, run: Run) -> None:
    _, told = run(f"replay J M --volume a={uri}")
    assert f"volume a is at {uri}: nothing keeps a second writer away, and it is read back through the server's" in told
    out, _ = run("verify M")
    assert "10 pages checked through the server's cache, state sum as in the journal" in out
    out, _ = run("status M")
    assert f"  volume a: 5.0 KiB  {uri}; nothing keeps a second writer away\n" in out
    assert "through the server's cache: no bad page" in out
    shown = json.loads(run("status M --json")[0])
    assert shown["volumes"][0]["place"] == uri and shown["volumes"][0]["is_guarded"] is False
    assert shown["verified"]["through_server_cache"] is True
    assert json.loads(run("replay J M --json")[0])["through_server_cache"] is True
    receipt = json.loads(run("verify M --json")[0])
    assert receipt["through_server_cache"] is True and receipt["cached"] is False
    kept = [json.loads(path.read_text()) for path in sorted(Path("M/receipts").iterdir())]
    assert [each["through_server_cache"] for each in kept] == [True, True]
    assert json.loads(run("replay J files --json")[0])["through_server_cache"] is False
    assert "is_guarded': True" in str(json.loads(run("status files --json")[0]))
    _, told = run("replay J M --volume a=nbd://localhost/disk", 2)
    assert f"volume a is kept in {uri}; a mirror's volumes cannot be moved" in told
    run(f"replay J M --volume a={uri}")


@pytest.mark.usefixtures("maker")
def test_it_is_not_promoted_and_the_error_says_what_to_do(uri: str, run: Run) -> None:
    run(f"replay J M --volume a={uri}")
    _, told = run("promote M --yes", 20)
    assert len(told.splitlines()) == 1
    assert f"volume a is an export of an NBD server, {uri}" in told
    assert "mirrortool export copies it to a file; or replay the journal into a mirror on a device" in told
    run("replay J M")


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(
    ("target", "code", "text"),
    [
        ("nbd+unix:///disk?socket=/nowhere/s", 35, "the NBD server cannot be reached: No such file or directory"),
        ("nbd://127.0.0.1:1/disk", 35, "the NBD server cannot be reached: Connection refused"),
        ("nbd+unix:///disk", 2, "not an NBD URI: it needs socket=PATH, from the root; give nbd://"),
        ("nbd+vsock://2/disk", 2, "the scheme 'nbd+vsock' is not known"),
        ("nbds://127.0.0.1:1/disk?tls-certificates=/nowhere", 32, "cannot read ca-cert.pem"),
    ],
)
def test_a_server_that_is_not_there_or_a_uri_that_is_none(run: Run, target: str, code: int, text: str) -> None:
    _, told = run(f"replay J M --volume a={target} -q", code)
    assert len(told.splitlines()) == 1 and text in told, told
    assert not Path("M/mirror.json").exists()


def garbage(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def wrong_reply(peer: Peer) -> None:
    peer.handshake(2 * SIZE)
    while True:
        peer.request()
        peer.send(bytes(64))


def short_reply(peer: Peer) -> None:
    peer.handshake(2 * SIZE, contexts=False)
    asked = peer.request()
    peer.chunk(asked.cookie, 1, struct.pack(">Q", asked.offset) + bytes(asked.length - 1))


def silent(peer: Peer) -> None:
    peer.handshake(2 * SIZE)
    peer.wait_for_end()


@pytest.mark.usefixtures("maker")
@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        (garbage, 35, "it is not an NBD server; use another server"),
        (wrong_reply, 35, "the server does not keep to the NBD protocol: a reply begins with 0x0"),
        (short_reply, 35, "it answers a READ in part"),
        (
            silent,
            35,
            "the server does not answer; end its connection at the server, or restart that; then",
        ),
        (lambda peer: peer.handshake(SIZE - 1), 20, "use a larger one"),
        (lambda peer: peer.handshake((1 << 63) - 1, 0), 20, "has no FLUSH"),
        (lambda peer: peer.handshake(1 << 63), 35, "it says that the export has"),
    ],
)
def test_a_server_that_lies_or_is_slow_costs_one_line(
    run: Run, tmp_path: Path, script: Script, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clientconnection, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(clientconnection, "OVER_SECONDS", 0.0)
    with scripted(tmp_path, script) as uri:
        _, told = run(f"replay J M --volume a={uri} -q", code)
    assert len(told.splitlines()) == 1 and text in told, told
    assert not Path("M/mirror.json").exists()


def test_a_plain_replay_ends_with_what_was_lost_and_the_next_one_continues(
    maker: JournalMaker, uri: str, export: ForgetfulExport, run: Run
) -> None:
    run(f"replay J M --volume a={uri}")
    maker.frame(Write("a", 7, b"x" * PAGE), Commit())
    export.kill_after(1)
    _, told = run("replay J M -q", 35)
    assert len(told.splitlines()) == 1
    assert "the server has ended the connection; run the command again when the server is back; the mirror is" in told
    run("replay J M")
    run("verify M")
    assert export.durable[7 * PAGE : 8 * PAGE] == b"x" * PAGE


@pytest.mark.usefixtures("maker")
def test_a_follower_begins_again_until_the_server_is_back(
    uri: str, export: ForgetfulExport, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt is a whole one, from the last checkpoint; while the server is away the pauses grow."""
    monkeypatch.setattr(replayfollow, "_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(replayfollow, "_PAUSE_SECONDS_MAX", 0.004)
    runs, failures = 0, 3

    def open_replay() -> Replay:
        nonlocal failures
        if runs and failures:
            failures -= 1
            raise ServerError("the NBD server cannot be reached", where=uri, remedy="check that it runs")
        return Replay("J", "M", plan=ONE_TASK, targets={"a": uri})

    def once(replay: Replay) -> int:
        nonlocal runs
        runs += 1
        if runs < 3:
            export.kill_after(runs)
        assert replay.run().is_consistent
        return 0

    with Following(open_replay) as following:
        following.run(once)
        assert following.replay.mirror.checkpoint.position.lsn == 8
    assert (runs, failures, export.kills) == (3, 0, 2)
    told = capsys.readouterr().err
    assert told.count(f"lost: {uri}: the server has ended the connection; retrying") == 2
    assert told.count(f"{uri}: the NBD server cannot be reached; retrying") == 1
    assert export.data[:PAGE] == b"\1" * PAGE


@pytest.mark.usefixtures("maker")
def test_a_follower_ends_when_it_is_told_to_while_the_server_is_away(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayfollow, "_PAUSE_SECONDS", 0.001)
    tries = 0

    def open_replay() -> Replay:
        nonlocal tries
        tries += 1
        if tries > 1:
            if tries == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            raise ServerError("is away", where=uri, remedy="wait")
        return Replay("J", "M", plan=ONE_TASK, targets={"a": uri})

    def once(_replay: Replay) -> int:
        raise ServerError("is gone", where=uri, remedy="wait")

    with Following(open_replay) as following:
        following.run(once)
    assert tries >= 5


@pytest.mark.usefixtures("maker")
def test_a_unit_may_reach_the_server_and_nothing_more(uri: str, run: Run, tmp_path: Path) -> None:
    run(f"replay J M --volume a={uri}")
    found = settings(run("unit replay J M --follow")[0])
    assert found["RestrictAddressFamilies"] == "AF_UNIX" and f"{tmp_path}/s" not in found["ReadWritePaths"]
    found = settings(run("unit replay J N --follow --volume a=nbds://far:10809/disk?tls-certificates=/etc/pki/x")[0])
    assert "AF_INET" in found["RestrictAddressFamilies"] and "/etc/pki/x" in found["RequiresMountsFor"]
    assert "a=nbds://far:10809/disk?tls-certificates=/etc/pki/x" in found["ExecStart"]


def test_a_volume_that_outgrows_the_export_is_refused_with_both_sizes(
    maker: JournalMaker, uri: str, run: Run, export: MemoryExport
) -> None:
    run(f"replay J M --volume a={uri}")
    maker.frame(Resize("a", 2 * SIZE), Commit())
    run("replay J M")
    maker.frame(Resize("a", 2 * SIZE + 1), Commit())
    _, told = run("replay J M -q", 20)
    assert "volume a grows to 10.0 KiB (10241 bytes), " in told and "has 10.0 KiB" in told
    assert Journal("J").volumes["a"].size == SIZE and export.size == 2 * SIZE
