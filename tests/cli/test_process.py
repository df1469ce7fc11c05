"""The program as a process: streams that are closed or full, limits, and signals."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.volumes import inside_fast_directory, make_old
from tests.fakes.waiting import wait_until

PROGRAM = f"{shlex.quote(sys.executable)} -m mirrortool"


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with inside_fast_directory() as directory:
        Path("disk.img").write_bytes(b"disk" * 65536)
        make_old("disk.img")
        assert main(["init", "J", "disk=disk.img"]) == main(["record", "J"]) == main(["replay", "J", "M"]) == 0
        yield directory


def shell(place: str, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line by the shell, where `mirrortool` is the program."""
    full = f'mirrortool() {{ exec {PROGRAM} "$@"; }}; {line}'
    return subprocess.run(["sh", "-c", full], cwd=place, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("mirrortool record J >&-", 0),
        ("mirrortool verify J 2>&-", 0),
        ("mirrortool replay J M <&- >&- 2>&-", 0),
        ("mirrortool log nothing 2>&-", 14),
        ("mirrortool record J --before 'echo x' --after 'echo y' >&- 2>&-", 0),
        ("mirrortool record J 2>/dev/full", 0),
        ("mirrortool replay J M 2>/dev/full", 0),
        ("mirrortool log nothing 2>/dev/full", 14),
        ("mirrortool record J --nothing 2>/dev/full", 2),
        ("mirrortool record J --before false 2>/dev/full", 34),
        ("mirrortool status J --json >/dev/full", 30),
        ("mirrortool status J >/dev/full 2>/dev/full", 30),
        ("mirrortool status J nothing >/dev/full", 30),
        ("mirrortool log J >/dev/full", 30),
        ("mirrortool completion bash >/dev/full", 30),
        ("mirrortool slot >/dev/full", 30),
        ("mirrortool --help >/dev/full", 30),
        ("_MIRRORTOOL_COMPLETE=bash_source mirrortool >/dev/full", 30),
    ],
)
def test_streams_that_nobody_reads(place: str, line: str, code: int) -> None:
    """Python buffers both, unless it is told not to, and tries once more when it ends."""
    done = shell(place, line)
    assert done.returncode == code, done.stderr
    assert not any(bad in done.stderr for bad in ("Traceback", "a bug", "Exception ignored"))
    errors = [each for each in done.stderr.splitlines() if each.startswith("mirrortool:")]
    assert len(errors) == bool(code and "2>" not in line)
    assert main(["verify", os.path.join(place, "J"), "-q"]) == 0


@pytest.mark.parametrize(
    ("stream", "arguments", "code"),
    [
        ("stdout", "status J", -signal.SIGPIPE),
        ("stdout", "--help", -signal.SIGPIPE),
        ("stderr", "record J", 0),
        ("stderr", "log nothing", 14),
    ],
)
def test_a_pipe_that_nobody_reads_any_more(place: str, stream: str, arguments: str, code: int) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: theirs}
    done = subprocess.run([sys.executable, "-m", "mirrortool", *arguments.split()], cwd=place, **streams, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr or b"") == (code, b"")


@pytest.mark.parametrize("limit", ["-n 5", "-n 7"])
@pytest.mark.parametrize("arguments", ["record J", "replay J M-new", "verify M"])
def test_no_descriptor_left(place: str, limit: str, arguments: str) -> None:
    done = shell(place, f"ulimit {limit}; mirrortool {arguments}")
    assert (done.returncode, len(done.stderr.splitlines())) == (33, 1), done.stderr


def test_a_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    """A recorder of 500 volumes must not end for the 1,024 that a login has."""
    (tmp_path / "disks").mkdir()
    volumes = [f"v{number}={tmp_path}/disks/{number}.img:64K" for number in range(60)]
    limited = ["sh", "-c", f'ulimit -Sn 50; exec {PROGRAM} "$@"', "sh"]
    for arguments in (["init", "J", *volumes], ["record", "J"], ["replay", "J", "M"]):
        subprocess.run([*limited, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    recorder = subprocess.Popen(
        [*limited, "record", "J", "--nbd", "unix:s", "-q"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    wait_until(lambda: (tmp_path / "s").exists() or recorder.poll() is not None)
    recorder.terminate()
    assert b"commit" in recorder.communicate(timeout=60)[0] and recorder.returncode == 0


def begin(place: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mirrortool", *arguments]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


STOPPING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGQUIT: 131}


@pytest.mark.parametrize(("number", "code"), STOPPING.items())
def test_after_runs_when_before_is_stopped(place: str, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """And not before that has ended by itself."""
    made, go, done, gone = (str(tmp_path / name) for name in ("made", "go", "done", "gone"))
    process = begin(
        place,
        "record",
        "J",
        "--before",
        f"touch {made}; while ! test -e {go}; do sleep 0.01; done; touch {done}",
        "--after",
        f"test -e {done} && touch {gone}",
    )
    wait_until(lambda: os.path.exists(made))
    process.send_signal(number)
    Path(go).touch()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert os.path.exists(done) and os.path.exists(gone)
    assert len(errors.split()) > 1 and len([line for line in errors.splitlines() if line]) == 1, errors


def test_a_terminal_that_is_closed_sends_several_signals_and_after_runs(place: str, tmp_path: Path) -> None:
    """To all that it had started, the command of --after included."""
    gone = tmp_path / "gone"
    done = shell(
        place,
        "mirrortool record J -q --before 'kill -HUP $PPID; kill -HUP $PPID' "
        f"--after 'kill -HUP $PPID; kill -HUP $$; touch {gone}'",
    )
    assert (done.returncode, gone.exists()) == (129, True), done.stderr


def test_signals_that_were_ignored_at_the_start_are_ignored(place: str) -> None:
    """As under nohup, and so they are for what it starts."""
    hit = "kill -HUP $PPID; kill -QUIT $PPID; kill -HUP $$"
    done = shell(place, f"trap '' HUP QUIT; mirrortool record J -q --before '{hit}' --after '{hit}'")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("number", "code"), STOPPING.items())
def test_a_command_with_nothing_to_stop_unwinds(number: int, code: int) -> None:
    """What it has open is closed, and what it begun undone, whichever signal it is."""
    program = (
        "import os, sys; sys.argv = ['mirrortool', 'status', 'J']\n"
        "from mirrortool.cli import main as program\n"
        "def act(*_, **__):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {number})\n"
        "    finally:\n"
        "        print('undone')\n"
        "program.cli.main = act\n"
        "program.run()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "undone\n", "mirrortool: interrupted\n")


@pytest.mark.parametrize("number", STOPPING)
def test_repeated_record_ends_cleanly(place: str, tmp_path: Path, number: signal.Signals) -> None:
    seen = str(tmp_path / "seen")
    process = begin(place, "record", "J", "--every", "1h", "--after", f"touch {seen}")
    wait_until(lambda: os.path.exists(seen))
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (0, False)


def test_interrupt_while_modules_load_prints_no_traceback(place: str) -> None:
    program = (
        "import signal, os, sys; sys.argv = ['mirrortool', 'status', 'J']\n"
        "import mirrortool.__main__ as program\n"
        "class Stop:\n"
        "    def find_spec(self, *_):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "program.run()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
