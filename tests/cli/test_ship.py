"""ship and receive as their users type them: what is refused, what is printed, and where a restricted key may write."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from mirrortool.cli.receive import inside
from mirrortool.cli.ship import REASONS_MAX, Outages
from mirrortool.errors import AccessError, UsageError
from mirrortool.journal.slots import check_name
from mirrortool.ship.destination import Destination, Remote, parse_destination
from mirrortool.ship.remote import command_for
from mirrortool.ship.sender import Shipment, connector
from mirrortool.ship.shipoptions import ShipOptions
from mirrortool.ship.shipprogress import ShipProgress
from tests.docs.workshop import environment, make_image, run
from tests.fakes.daemon import Daemon
from tests.fakes.journals import memory_directory
from tests.ship.pairs import assert_same


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a journal, and a program in place of ssh that runs the command on this host."""
    with memory_directory() as path:
        monkeypatch.chdir(path)
        make_image(Path("disk.img"))
        run("init", "J", "disk=disk.img")
        run("record", "J", "-q")
        rsh = Path("rsh")
        rsh.write_text('#!/bin/sh\necho "$@" >> asked\nshift\nexec sh -c "$1"\n')
        rsh.chmod(0o755)
        program("chatty", 'echo "Welcome to the far side\nYou have mail."; shift; exec sh -c "$1"')
        program("csh", 'echo "mirrortool: Command not found." >&2; exit 1')
        for name, value in environment(path / "bin").items():
            monkeypatch.setenv(name, value)
        yield path


def program(name: str, script: str) -> None:
    Path(name).write_text(f"#!/bin/sh\n{script}\n")
    Path(name).chmod(0o755)


def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, **more}, check=False
    )


def write_stream(path: Path) -> None:
    """The journal as a stream in a file."""
    options = ShipOptions(has_slot=False)
    destination = parse_destination("-")
    with path.open("wb") as file:
        Shipment("J", destination, options, connector(destination, options, sink=file.fileno())).run()


DESTINATIONS = [
    ("copy", Destination("copy", directory="copy")),
    ("/srv/a:b", Destination("/srv/a:b", directory="/srv/a:b")),
    ("./a:b", Destination("./a:b", directory="./a:b")),
    ("-", Destination("-")),
    ("host:copy", Destination("host:copy", remote=Remote("host", 0, "copy"))),
    ("host:~/copy", Destination("host:~/copy", remote=Remote("host", 0, "copy"))),
    ("host:-f", Destination("host:-f", remote=Remote("host", 0, "./-f"))),
    ("me@host:/a b:c", Destination("me@host:/a b:c", remote=Remote("me@host", 0, "/a b:c"))),
    ("me@[::1]:/x", Destination("me@[::1]:/x", remote=Remote("me@::1", 0, "/x"))),
    ("ssh://me@host:22/x", Destination("ssh://me@host:22/x", remote=Remote("me@host", 22, "/x"))),
    ("ssh://host/~/x", Destination("ssh://host/~/x", remote=Remote("host", 0, "x"))),
    ("ssh://[fe80::1]:7/x", Destination("ssh://[fe80::1]:7/x", remote=Remote("fe80::1", 7, "/x"))),
]


@pytest.mark.parametrize(("text", "expected"), DESTINATIONS)
def test_destination_is_read_as_rsync_and_scp_do(text: str, expected: Destination) -> None:
    assert parse_destination(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":x", "-oProxyCommand=x:y", "me@-oX:y", "host:", "host::module", "ssh://host", "ssh://host:99999/x",
        "ssh://-oX/y", "ssh:///x", "host:~other/x", "a b:c",
    ],
)  # fmt: skip
def test_a_destination_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_destination(text)


def test_nothing_of_a_path_is_obeyed_by_the_shell_there() -> None:
    remote = Remote("host", 2222, "a'; rm -rf $HOME; echo `x` \n.")
    command = command_for(remote, None, "mirrortool")
    assert command[:-1] == ["ssh", "-T", "-o", "BatchMode=yes", "-p", "2222", "--", "host"]
    assert shlex.split(command[-1]) == ["mirrortool", "receive", remote.path]


def test_slot_names_are_proper_and_differ() -> None:
    texts = ["me@host:/srv/J", "x" * 200, "y" * 100 + "x" * 100, "ä:ö", "/"]
    names = [parse_destination(each).slot_name() for each in texts]
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)


def test_an_outage_is_told_with_each_of_its_reasons_once_and_its_end() -> None:
    told: list[str] = []
    progress, outages = ShipProgress("far:J"), Outages(told.append, follow=False)
    for problem in ["", "away", "away", "full", "away", "full", "", "", "away", ""]:
        progress.problem = problem
        outages.look(progress.statistics())
    assert told == [f"far:J: {what}" for what in ("away", "full", "connected again", "away", "connected again")]


def test_an_outage_with_ever_other_reasons_fills_no_log() -> None:
    told: list[str] = []
    progress, outages = ShipProgress("far:J"), Outages(told.append, follow=True)
    for number in range(1000):
        progress.problem = f"away for {number} seconds"
        outages.look(progress.statistics())
    assert len(told) == REASONS_MAX
    assert all(line.endswith("retrying") for line in told)


@pytest.mark.usefixtures("place")
def test_a_journal_goes_through_a_command_in_place_of_ssh() -> None:
    done = shell("mirrortool ship J --rsh ./rsh 'x:a b' && mirrortool verify 'a b'")
    assert done.returncode == 0, done.stderr
    assert Path("asked").read_text() == "x mirrortool receive 'a b'\n"
    assert_same(Path("J"), Path("a b"))


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        ("J", 2, "Missing argument 'DEST...'"),
        ("nothing C", 14, "does not exist"),
        ("J J", 32, "a primary's journal is here"),
        ("J /proc/x", 32, "check the path"),
        ("J disk.img", 32, ""),
        ("J C C", 2, "named twice"),
        ("J C --after 3", 2, "--after is for a pipe"),
        ("J C --slot 1x", 2, "not a slot's name"),
        ("J C D --slot x", 2, "--slot names"),
        ("J C --timeout 1s", 2, "at least 15s"),
        ("J C --bwlimit 0", 2, "is a bare number"),
        ("J C --bwlimit fast", 2, "is not a size"),
        ("J - --json", 2, "would both use"),
        ('J x:C --rsh "\'"', 2, "--rsh"),
        ("J x:C --rsh ' '", 2, "--rsh is empty"),
        ("J x:C --rsh false", 40, "x:C: the other side ended; false ended with status 1"),
        ("J x:C --rsh ./nothing", 32, "./nothing: cannot run"),
        ("J x:C --rsh ./rsh --remote-path nothing", 40, "not found"),
        ("J x:C --rsh 'echo hello'", 40, "what arrives is not a message: 'hello"),
        ("J x:J --rsh ./rsh", 32, "a primary's journal is here"),
        ("J - --after 9999", 2, "LSN 9999 is above the newest"),
        ("J - --after never", 2, "no mark never"),
        ("J - --after 1999-01-01 --from 2", 2, "the old name of --after"),
        ("J C --from 3", 2, "--after is for a pipe"),
        ("J s3://bucket/J", 2, "does not ship to s3://"),
        ("J s3://bucket/J --follow", 2, "does not ship to s3://"),
        ("J x:C --rsh ./chatty", 40, "'Welcome to the far side You have mail.', as a login script"),
        ("J x:C --rsh ./chatty --follow", 40, "let login scripts there print at a terminal only"),
        ("J x:C --rsh ./rsh --remote-path nothing --follow", 40, "--remote-path says where the program is there"),
        ("J x:C --rsh ./rsh --remote-path ./rsh/x", 40, "--remote-path says"),
        ("J x:C --rsh './csh' --follow", 40, "--remote-path says"),
    ],
)
@pytest.mark.usefixtures("place")
def test_what_goes_wrong_is_one_line_and_a_code(arguments: str, code: int, what: str) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        found = main(["ship", *shlex.split(arguments)])
    text = errors.getvalue()
    assert (found, len(text.splitlines())) == (code, 1), text
    assert what in text and "bug" not in text


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        ("mirrortool receive C </dev/null", 40, "the other side ended"),
        ("mirrortool ship J - > /dev/full", 30, "No space left"),
        ("mirrortool receive C <disk.img", 40, "not a message"),
        ("mirrortool receive </dev/null", 2, "name the JOURNAL, or --restrict-to"),
        ("mirrortool receive C --timeout 1s </dev/null", 2, "--timeout is at least 15s"),
        ("script -qec 'mirrortool receive C' /dev/null </dev/null >&2", 2, "standard input is a terminal"),
        ("script -qec 'mirrortool ship J -' /dev/null </dev/null >&2", 2, "standard output is a terminal"),
        ("{ echo Welcome; mirrortool ship J - -q; } | mirrortool receive C", 40, "'Welcome', as a login script"),
        ("mirrortool ship J - -q 2>/dev/null | head -c 3000 | mirrortool receive C", 40, "in the middle of a message"),
        ("mirrortool ship J - -q | mirrortool receive -q C; mirrortool ship J - | mirrortool receive C", 0, "next"),
    ],
)
def test_receive_from_a_pipe(line: str, code: int, what: str) -> None:
    done = shell(line)
    assert done.returncode == code, done
    assert what in done.stderr and "bug" not in done.stderr and "MJS1" not in done.stdout


@pytest.mark.usefixtures("place")
def test_a_stream_repeated_and_cut_in_two_makes_one_copy() -> None:
    assert shell("mirrortool ship J - >one; printf x | dd of=disk.img conv=notrunc 2>/dev/null").returncode == 0
    assert shell("mirrortool record J -q; mirrortool ship J - --after 2 >two").returncode == 0
    for name in ("one", "two", "one"):
        done = shell(f"mirrortool receive C <{name}")
        assert done.returncode == 0, done.stderr
    assert_same(Path("J"), Path("C"))
    assert shell("mirrortool receive D <two").returncode == 12


@pytest.mark.usefixtures("place")
def test_a_stream_begins_after_a_point() -> None:
    """What a copy has up to there lacks nothing; a time is that of the copy's last frame, which comes again."""
    run("ship", "J", "-q", "C")
    time = json.loads(run("log", "C", "--json"))["commits"][-1]["time"]
    shutil.copytree("C", "D")
    run("mark", "-q", "J", "here")
    for copy, point in (("C", f"@{time}"), ("D", "2")):
        done = shell(f"mirrortool ship -q J - --after {point} | mirrortool receive {copy}")
        assert done.returncode == 0, done.stderr
        assert_same(Path("J"), Path(copy))


@pytest.mark.usefixtures("place")
def test_a_restricted_key_writes_below_its_directory_only() -> None:
    Path("allowed").mkdir()
    Path("allowed/out").symlink_to("..")
    Path("allowed/etc").symlink_to("/etc")
    allowed = os.path.realpath("allowed")
    assert inside("allowed", "J") == f"{allowed}/J"
    assert inside("allowed", f"{allowed}/a/../J") == f"{allowed}/J"
    for path in ("..", ".", "", "../J", "out/J", "etc/J", "/etc", allowed, f"{allowed}/../J", f"{allowed}x/J", "/"):
        with pytest.raises(AccessError):
            inside("allowed", path)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("mirrortool receive J2", 0),
        ("sudo /usr/bin/mirrortool receive 'J2'", 0),
        ("mirrortool receive ../J2", 32),
        ("mirrortool receive $HOME", 0),  # a name like any other
        ("sh -c 'rm -rf /'", 32),
    ],
)
def test_a_forced_command_takes_the_path_that_the_client_asks_for(asked: str, code: int) -> None:
    Path("allowed").mkdir()
    write_stream(Path("stream"))
    done = shell("mirrortool receive --restrict-to allowed -q < stream", SSH_ORIGINAL_COMMAND=asked)
    assert done.returncode == code, done.stderr
    made = {each.name for each in Path("allowed").iterdir()}
    assert len(made) == (0 if code else 1)
    assert not Path("J2").exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following_is_stopped_cleanly(number: signal.Signals) -> None:
    newest = max(Path("J/files").iterdir())
    copies = [Path(copy, "files", newest.name) for copy in "CD"]
    with Daemon("ship", "J", "C", "x:D", "--rsh", "./rsh", "--follow", "--json") as shipping:
        shipping.wait_until(lambda: all(each.exists() and each.read_bytes() == newest.read_bytes() for each in copies))
        assert shipping.stop(number).count('"state": "ended"') == 2
    for copy in "CD":
        assert_same(Path("J"), Path(copy))


@pytest.mark.usefixtures("place")
def test_status_log_and_replay_take_a_copy() -> None:
    run("ship", "J", "C", "-q")
    run("replay", "C", "M", "-q")
    run("verify", "M", "-q")
    assert "newest commit" in run("status", "C")
    assert run("log", "C") == run("log", "J")
    run("record", "C", expected=14)
