"""`record --nbd` as a person meets it: what is refused, in one line and with the documented code; signals; streams that
nobody reads; the other commands beside it."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.nbd.protocol import Command, CommandFlag, Option, Reply
from mirrortool.record.controlsocket import ask
from mirrortool.record.writeback import WAITING_BYTES_MAX
from mirrortool.sockets.addresses import UnixAddress
from tests.cli.liveclients import client_of, get, put
from tests.fakes.certificates import certify, make_authority
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, require, require_tools
from tests.fakes.volumes import inside_fast_directory
from tests.fakes.waiting import PATIENCE_SECONDS, wait_until
from tests.interop.tool import Site, site_of_a_disk
from tests.nbd.wire import Client, encode_info_request, encode_request

MIB = 1 << 20
SIZE = 8 * MIB
LONG_NAME = "x" * 120

Capture = pytest.CaptureFixture[str]


def build() -> None:
    """In the current directory: journals with a volume each, and things in the way of a socket."""
    for name in ("disk", "gone", "copied", "small"):
        Path(f"{name}.img").write_bytes(name.encode() * 1000)
        assert main(["init", f"J-{name}", f"disk={name}.img"]) == 0
    os.unlink("gone.img")
    shutil.copytree("J-copied", "copy")
    os.unlink("copy/recorder.json")
    os.unlink("copy/local.json")
    Path("file").write_bytes(b"no socket")
    os.mkdir("directory")
    os.mkdir("empty-certificates")


@pytest.fixture(scope="module")
def built() -> Iterator[str]:
    with inside_fast_directory() as directory:
        build()
        yield directory


@pytest.fixture
def busy(built: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """Somebody listens at `live` and on a port; that directory is the current one."""
    monkeypatch.chdir(built)
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as port:
        local.bind("live")
        local.listen()
        yield built, port.getsockname()[1]
    os.unlink("live")


REFUSED = [
    # addresses
    (2, "record J-disk --nbd nonsense", "unix:PATH"),
    (2, "record J-disk --nbd unix:", "unix:PATH"),
    (2, "record J-disk --nbd http://x", "unix:PATH"),
    (2, "record J-disk --nbd tcp:127.0.0.1 --insecure", "tcp:HOST:PORT"),
    (2, "record J-disk --nbd tcp:127.0.0.1:x --insecure", "tcp:HOST:PORT"),
    (2, "record J-disk --nbd tcp:127.0.0.1:65536 --insecure", "tcp:HOST:PORT"),
    (2, "record J-disk --nbd tcp:203.0.113.9:0 --insecure", "does not have the address"),
    (2, "record J-disk --nbd tcp:no.such.host.invalid:0 --insecure", "no such name"),
    (2, f"record J-disk --nbd unix:{LONG_NAME}", "107"),
    (2, "record J-disk --nbd unix:file", "not a socket"),
    (2, "record J-disk --nbd unix:directory", "not a socket"),
    (32, "record J-disk --nbd unix:missing/s", "No such file"),
    (22, "record J-disk --nbd unix:live", "a server answers"),
    (22, "record J-disk --nbd tcp:127.0.0.1:PORT --insecure", "another server listens"),
    (22, "record J-disk --nbd unix:s --nbd unix:s", "s"),
    (22, "record J-disk --nbd unix:s --nbd unix:live", "a server answers"),
    # TLS and TCP
    (2, "record J-disk --nbd tcp:127.0.0.1:0", "--insecure"),
    (2, "record J-disk --nbd unix:s --nbd tcp:127.0.0.1:0", "--insecure"),
    (32, "record J-disk --nbd tcp:127.0.0.1:0 --tls-certificates empty-certificates", "server-cert.pem"),
    (32, "record J-disk --nbd tcp:127.0.0.1:0 --tls-certificates missing", "missing"),
    (2, "record J-disk --nbd tcp:127.0.0.1:0 --tls-anonymous --insecure", "--tls-certificates"),
    (2, "record J-disk --nbd unix:s --max-memory 100M", "64 clients need 2M of memory each"),
    (2, "record J-disk --nbd unix:s --max-memory 15M --max-connections 8", "--max-memory is 15M; raise it"),
    (2, "record J-disk --nbd unix:s --max-memory x", "is not a size"),
    (2, "record J-disk --max-memory 1G", "--nbd"),
    # options
    (2, "record J-disk --nbd unix:s --every 10m", "--nbd"),
    (2, "record J-disk --nbd unix:s --source disk=disk.img", "--nbd"),
    (2, "record J-disk --nbd unix:s --before true", "--nbd"),
    (2, "record J-disk --nbd unix:s --allow-fuzzy", "--nbd"),
    (2, "record J-disk --insecure", "--nbd"),
    (2, "record J-disk --socket-mode 0600", "--nbd"),
    (2, "record J-disk --when-full stop", "--nbd"),
    (2, "record J-disk --reserve 1M", "--nbd"),
    (2, "record J-disk --max-connections 3", "--nbd"),
    (2, "record J-disk --nbd unix:s --max-connections 0", "range"),
    (2, "record J-disk --nbd unix:s --max-connections x", "integer"),
    (2, "record J-disk --nbd unix:s --socket-mode 999", "is not a mode"),
    (2, "record J-disk --nbd unix:s --socket-mode 7777", "is not a mode"),
    (2, "record J-disk --nbd unix:s --socket-group no-such-group", "no-such-group"),
    (2, "record J-disk --nbd unix:s --when-full nonsense", "not one of"),
    (2, "record J-disk --nbd unix:s --reserve x", "is not a size"),
    # journals and volumes
    (14, "record missing --nbd unix:s", "does not exist"),
    (14, "record directory --nbd unix:s", "is a directory, but not a journal"),
    (14, "record copy --nbd unix:s", "copy"),
    (20, "record J-gone --nbd unix:s", "does not exist"),
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("code", "line", "phrase"), REFUSED, ids=map(str, range(len(REFUSED))))
def test_refused(code: int, line: str, phrase: str, busy: tuple[str, int], capsys: Capture) -> None:
    place, port = busy
    capsys.readouterr()
    before = sorted(os.listdir(place))
    assert main(line.replace("PORT", str(port)).split(" ")) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("mirrortool: ") and phrase in told[0], told
    assert sorted(os.listdir(place)) == before, "no socket is left"
    assert not os.path.exists(f"{place}/J-disk/control.sock")


# One at work.


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_of_a_disk(tmp_path, SIZE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(site: Site, number: int) -> None:
    """Exit 0, one line on stdout, nothing left of the sockets, and what was acknowledged is on the volume."""
    live = LiveRecorder(site.journal)
    live.start()
    with client_of(live) as client:
        live.wait_for_base()
        assert put(client, 5, b"written") == 0
        told = live.stop(number)
    assert len(told.splitlines()) == 1 and told.startswith("commit "), told
    assert any("stopping" in line for line in live.lines)
    assert not live.socket.exists() and not (site.journal / "control.sock").exists()
    assert (site.path / "disk.img").read_bytes()[5:12] == b"written"
    site.prove()


def test_second_signal_ends_it_at_once(site: Site) -> None:
    """And what was acknowledged is there after the next start."""
    live = LiveRecorder(site.journal)
    live.start()
    with client_of(live) as client:
        assert put(client, 5, b"written") == 0
        for _ in range(4):
            client.send(encode_request(Command.READ, 1, 0, SIZE))  # nobody listens to the answers: a stop waits a while
        assert select.select([client.socket], [], [], PATIENCE_SECONDS)[0], "no answer begins"
        live.process.terminate()
        live.wait_for("stopping")
        live.process.terminate()
        live.wait(128 + signal.SIGTERM)
    with live, client_of(live) as client:
        assert get(client, 5, 7) == b"written"
    site.prove()


def test_idle_and_silent_clients_do_not_keep_it(site: Site) -> None:
    live = LiveRecorder(site.journal)
    live.start()
    live.wait_for_base()
    with client_of(live), client_of(live) as half, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(live.socket))
        half.send(encode_request(Command.WRITE, 1, 0, MIB)[:20])
        live.stop()
    site.prove()


def test_json_and_quiet(site: Site) -> None:
    live = LiveRecorder(site.journal, "--json", "--quiet")
    live.begin()
    wait_for_socket(live)
    with client_of(live) as client:
        assert put(client, 0, b"x" * 4096) == 0
    live.wait_for_base()
    told = json.loads(live.stop())
    assert told["operations"] >= 1 and told["bytes_written"] == 4096 and told["incomplete"] == []
    assert told["commit_lsn"] == told["head_lsn"] == told["durable_lsn"]
    assert [line for line in live.lines if line and "stopping" not in line] == []


def wait_for_base(site: Site) -> None:
    """Of a recorder that is no LiveRecorder."""
    wait_until(lambda: not json.loads(site.run("status", site.journal, "--json"))["recorder"]["incomplete"])


def does_answer(live: LiveRecorder) -> bool:
    with contextlib.suppress(OSError), Client(UnixAddress(str(live.socket))):
        return True
    return False


def wait_for_socket(live: LiveRecorder) -> None:
    """Until somebody answers, for a recorder that says nothing."""
    live.wait_until(lambda: does_answer(live))


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_streams_that_nobody_reads(site: Site, streams: str) -> None:
    live = LiveRecorder(site.journal)
    line = f"exec {sys.executable} -m mirrortool record {site.journal} --nbd {live.address} {streams}"
    with (
        subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(process.kill)  # else a failure here would wait for a recorder that nobody stops
        wait_until(lambda: does_answer(live) or process.poll() is not None)
        with client_of(live) as client:
            assert put(client, 0, b"heard") == 0
            wait_for_base(site)
            client.send(encode_request(77, 1))  # something to tell of
            assert client.answer().error
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(live.socket))
            rude.sendall(b"garbage" * 100)
        process.terminate()
        assert process.wait(30) == 0
    site.prove()


def test_reader_of_stderr_that_leaves(site: Site) -> None:
    """Its log's reader ends: the recorder does not."""
    command = [sys.executable, "-m", "mirrortool", "record", site.journal, "--nbd", f"unix:{site.path}/s"]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr and b"serving" in process.stderr.readline()
    process.stderr.close()
    live = LiveRecorder(site.journal)
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(live.socket))
            rude.sendall(b"garbage" * 100)
    with client_of(live) as client:
        assert put(client, 0, b"still") == 0
        wait_for_base(site)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and told.startswith(b"commit ")
    site.prove()


def test_stale_socket_is_replaced(site: Site) -> None:
    live = LiveRecorder(site.journal)
    for _ in range(2):
        live.start()
        live.kill()
        assert live.socket.exists() and (site.journal / "control.sock").exists()
    with live, client_of(live) as client:
        assert get(client, 0, 4) == b"disk"
    site.prove()


def test_mode_and_group_of_the_socket(site: Site) -> None:
    with LiveRecorder(site.journal) as live:
        assert stat.S_IMODE(live.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE((site.journal / "control.sock").stat().st_mode) == 0o600
    require(os.geteuid() == 0, "needs root")
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, os.getgid()))
    with LiveRecorder(site.journal, "--socket-mode", "0660", "--socket-group", group.gr_name) as live:
        facts = live.socket.stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o660, group.gr_gid)


def test_more_connections_than_allowed(site: Site) -> None:
    with LiveRecorder(site.journal, "--max-connections", 2) as live, client_of(live) as first, client_of(live):
        with Client(UnixAddress(str(live.socket))) as third:
            assert third.ask(Option.GO, encode_info_request("", []))[0][0] == Reply.ERR_POLICY
        assert put(first, 0, b"served") == 0
        live.wait_for("2 are connected already")
    site.prove()


def test_memory_is_bounded_for_all_clients_together(tmp_path: Path) -> None:
    """Half of them stop in the middle of a large write, half never take what they read."""
    site, budget, length = Site(tmp_path), 64 * MIB, 32 * MIB
    site.init(f"disk={site.path}/disk.img:{length}")
    options = ("--max-memory", "64M", "--max-connections", 24)
    with LiveRecorder(site.journal, *options) as live, contextlib.ExitStack() as stack:
        live.wait_for_base()
        before = live.resident_bytes
        for number in range(24):
            client = stack.enter_context(client_of(live))
            if number % 2:
                client.send(encode_request(Command.WRITE, 1, 0, length) + bytes(length - MIB))
            else:
                client.send(encode_request(Command.READ, 1, 0, length))
        told = ask(str(site.journal), {"request": "status"})
        assert told and told["memory_bytes"] <= told["memory_bytes_max"] == budget
        assert told["requests_in_pieces"] > 0
        # What waits for the volume has a bound of its own.
        bound = before + budget + WAITING_BYTES_MAX
        has_global_lock = getattr(sys, "_is_gil_enabled", lambda: True)()  # without it: see Memory in record(1)
        assert live.peak_bytes < bound * (1 if has_global_lock else 2.5)
    site.prove()


def test_tcp(site: Site) -> None:
    """Port 0 is chosen by the system, and told."""
    live = LiveRecorder(site.journal, "--insecure", address="tcp:127.0.0.1:0")
    with live:
        (line,) = [line for line in live.lines if line.startswith("serving volume disk at nbd://127.0.0.1:")]
        port = int(line.rpartition(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            assert client.recv(8) == b"NBDMAGIC"


def told_uri(live: LiveRecorder) -> str:
    """The address that it prints for people to give to a client."""
    return next(line.rpartition(" at ")[2] for line in live.lines if line.startswith("serving volume "))


def test_the_uri_that_is_printed_is_one(tmp_path: Path) -> None:
    """Whatever the path has in it."""
    require_tools("nbdinfo")
    (tmp_path / "a b&c%20#é").mkdir()
    site = Site(tmp_path / "a b&c%20#é")
    site.init(f"disk={site.path}/disk.img:1M")
    with LiveRecorder(site.journal) as live:
        assert call("nbdinfo", "--size", told_uri(live)).strip() == str(MIB)


def test_the_uri_of_tls(site: Site) -> None:
    """TCP takes clients with TLS only, then."""
    require_tools("nbdinfo", "openssl")
    make_authority(site.path)
    for who in ("server", "client"):
        certify(site.path, site.path, who)
    with LiveRecorder(site.journal, "--tls-certificates", site.path, address="tcp:localhost:0") as live:
        uri = told_uri(live)
        assert uri.startswith("nbds://localhost:")
        assert call("nbdinfo", "--size", f"{uri}?tls-certificates={site.path}").strip() == str(SIZE)
        call("nbdinfo", "--size", uri.replace("nbds", "nbd"), check=False)
    site.prove()


def test_two_volumes_on_two_addresses(tmp_path: Path) -> None:
    """Each export is a volume; a commit is one moment of both."""
    site = Site(tmp_path)
    site.init(f"a={tmp_path}/a.img:1M", f"b={tmp_path}/b.img:2M")
    with LiveRecorder(site.journal, "--nbd", f"unix:{tmp_path}/other") as live:
        with client_of(live, "a") as a, client_of(live, "b") as b:
            for number in range(50):
                assert put(a, number * 4096, b"%04d" % number) == 0
                assert put(b, number * 4096, b"%04d" % number, CommandFlag.FUA) == 0
            assert client_sizes(tmp_path / "other") == [MIB, 2 * MIB]
        assert len([line for line in live.lines if line.startswith("serving volume")]) == 4
    site.prove()


def client_sizes(path: Path) -> list[int]:
    sizes = []
    for name in ("a", "b"):
        with Client(UnixAddress(str(path))) as client:
            sizes.append(client.go(name)[0])
    return sizes


# The other commands beside it.


def test_status_and_mark_of_one_at_work_and_of_a_killed_one(site: Site) -> None:
    live = LiveRecorder(site.journal)
    live.start()
    live.wait_for_base()
    with client_of(live) as client:
        assert put(client, 0, b"first") == 0
        told = json.loads(site.run("status", site.journal, "--json"))
        assert told["recorder"]["exports"][0]["clients"] == 1 and told["damage"] is None
        shown = site.run("status", site.journal)
        assert f"recorded by process {live.process.pid} since 20" in shown and "  1 client," in shown
        site.run("mark", site.journal, "first")
        assert put(client, 0, b"later") == 0
        site.run("mark", site.journal, "1bad", code=2)
    live.kill()
    told = json.loads(site.run("status", site.journal, "--json"))
    assert told["recorder"] is None and told["damage"] is None
    site.run("mark", site.journal, "second")
    for name, expected in (("first", b"first"), ("second", b"later")):
        site.run("replay", site.journal, site.mirror, "--until", name, "--quiet")
        assert site.image().read_bytes()[:5] == expected
    with live:
        pass
    site.prove()


def test_status_tells_of_a_client_by_the_right_number(site: Site) -> None:
    with LiveRecorder(site.journal) as live, client_of(live) as client:
        assert put(client, 0, b"x") == 0  # it is past the handshake
        told = site.run("status", site.journal)
        assert "1 client," in told, "one client is no clients"


def test_replay_verify_and_log_of_one_at_work(site: Site) -> None:
    """A journal that grows is read up to a commit, again and again; verify finds nothing wrong with either."""
    with LiveRecorder(site.journal) as live:
        live.wait_for_base()
        stop = threading.Event()

        def write_on() -> None:
            with client_of(live) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    assert put(client, number * 512 % (SIZE - 8192), b"%08d" % number * 512) == 0
                    if number % 50 == 0:
                        stop.wait(0.02)
                        assert client.do(Command.FLUSH).error == 0

        writer = threading.Thread(target=write_on)
        writer.start()
        try:
            applied = []
            for _ in range(3):
                applied.append(site.follow()["applied_lsn"])
                site.run("log", site.journal)
                site.run("verify", site.journal, "--quiet")
                assert site.run("status", site.journal, site.mirror)
        finally:
            stop.set()
            writer.join()
        assert applied == sorted(set(applied))
    site.prove()


def test_status_of_one_at_work_never_has_a_commit_past_the_end(site: Site) -> None:
    """What is committed was written; the two are not read at one moment."""
    with LiveRecorder(site.journal) as live:
        stop, committed = threading.Event(), threading.Event()

        def flush_on() -> None:
            with client_of(live) as client:
                number = 0
                while not stop.is_set():
                    number += 1
                    assert put(client, number * 512 % (SIZE - 8192), b"%08d" % number * 512, CommandFlag.FUA) == 0
                    committed.set()

        writer = threading.Thread(target=flush_on)
        writer.start()
        try:
            assert committed.wait(60)
            for _ in range(4):
                told = json.loads(site.run("status", site.journal, "--json"))
                assert told["commit_lsn"] <= told["head_lsn"]
        finally:
            stop.set()
            writer.join()


def test_no_second_recorder_of_any_kind(site: Site) -> None:
    with LiveRecorder(site.journal) as live:
        for extra in ([], ["--scan"], ["--every", "10m"], ["--nbd", f"unix:{site.path}/other"]):
            site.run("record", site.journal, *extra, code=22)
        with client_of(live) as client:
            assert put(client, 0, b"ours") == 0
        assert not (site.path / "other").exists()
    site.prove()


def test_changed_after_a_clean_stop(site: Site) -> None:
    """It is refused, and --scan takes it while serving."""
    with LiveRecorder(site.journal):
        pass
    with (site.path / "disk.img").open("r+b") as file:
        file.write(b"somebody")
    site.run("record", site.journal, "--nbd", f"unix:{site.path}/s", code=21)
    with LiveRecorder(site.journal, "--scan") as live, client_of(live) as client:
        assert get(client, 0, 8) == b"somebody"
        live.wait_for_base()
    site.prove()


def test_volume_that_grew_or_shrank_is_refused(site: Site) -> None:
    for size in (SIZE + 4096, SIZE - 4096):
        os.truncate(site.path / "disk.img", size)
        site.run("record", site.journal, "--nbd", f"unix:{site.path}/s", code=21)
