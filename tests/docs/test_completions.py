"""Completion in bash, zsh and fish, each run headless with the script that is installed.

Most of the cost is the start of the program at each TAB. So some tests start it; in the others the shell asks one that
notes what it was asked, and gives the answer that the program's code has given to that in this process.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import click
import pytest

from mirrortool.cli.completion import SHELLS, script
from mirrortool.cli.main import cli, main
from tests.docs.manual import ROOT
from tests.docs.workshop import environment, make_image, require, run

FILES = {"bash": "mirrortool.bash", "zsh": "_mirrortool", "fish": "mirrortool.fish"}
COMMANDS = cli.list_commands(click.Context(cli))
EACH_SHELL = pytest.mark.parametrize("shell", SHELLS)

# The function that bash calls at a TAB, called as bash would.
_BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_mirrortool_completion mirrortool
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# compadd and _describe work only inside of the line editor; here they print what they were to offer.
_ZSH = """
fpath=({directory} $fpath)
autoload -Uz _mirrortool
compadd() {{ print -rl -- ${{(P)@[-1]}} }}
_describe() {{ print -rl -- ${{(P)3}} }}
words=({words}) CURRENT={number}
_mirrortool
"""
_FISH = """
source {script}
complete --do-complete {line}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with two volumes and two marks."""
    directory = tmp_path_factory.mktemp("completions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        make_image(Path("disk.img"))
        run("init", "journal", "disk=disk.img", "data=data.img:1M", "-q")
        run("record", "journal", "-q")
        run("mark", "journal", "before-upgrade", "-q")
        run("mark", "journal", "installed", "-q")
        run("replay", "journal", "mirror", "-q")
    return directory


Complete = Callable[[str], set[str]]
_VARIABLES = ("_MIRRORTOOL_COMPLETE", "COMP_WORDS", "COMP_CWORD")
_NOTES = f"""#!/bin/sh
printf '%s\\0' {" ".join(f'"${each}"' for each in _VARIABLES)} >ASKED
cat ANSWER
"""


@pytest.fixture
def complete(shell: str, place: Path) -> Complete:
    """What a shell offers at the end of a line; the program is started."""
    known = environment(place / "bin")
    return lambda line: _offered(shell, line, place, known)


@pytest.fixture
def complete_here(shell: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """The same, but this process answers the shell."""
    asked, answer, known = tmp_path / "asked", tmp_path / "answer", environment(tmp_path / "bin")
    (tmp_path / "bin" / "mirrortool").write_text(_NOTES.replace("ASKED", str(asked)).replace("ANSWER", str(answer)))
    monkeypatch.chdir(place)

    def ask(line: str) -> set[str]:
        answer.write_bytes(b"")
        assert _offered(shell, line, place, known) == set()
        answer.write_bytes(_answer(asked.read_text().split("\0")[:-1]))
        return _offered(shell, line, place, known)

    return ask


def _answer(values: Sequence[str]) -> bytes:
    """What the program prints when a shell gives it these."""
    output = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.TextIOWrapper(output)):
        for name, value in zip(_VARIABLES, values, strict=True):
            patch.setenv(name, value)
        assert main([]) == 0
        return output.getvalue()


def _offered(shell: str, line: str, place: Path, known: Mapping[str, str]) -> set[str]:
    done = subprocess.run(
        [require(shell), *_flags(shell)], input=_program(shell, line), cwd=place, env=known,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return {_without_description(shell, each) for each in done.stdout.splitlines() if each}


def _flags(shell: str) -> list[str]:
    return {"bash": ["--norc", "-s"], "zsh": ["-f", "-s"], "fish": ["--no-config", "/dev/stdin"]}[shell]


def _program(shell: str, line: str) -> str:
    path = ROOT / "completions" / FILES[shell]
    words = [*line.split(" ")]
    quoted = " ".join(map(shlex.quote, words))
    if shell == "bash":
        return _BASH.format(script=path, words=quoted, last=len(words) - 1)
    if shell == "zsh":
        return _ZSH.format(directory=path.parent, words=quoted, number=len(words))
    return _FISH.format(script=path, line=shlex.quote(line))


def _without_description(shell: str, offered: str) -> str:
    return offered.split({"bash": "\n", "zsh": ":", "fish": "\t"}[shell])[0]


@EACH_SHELL
def test_files_are_current(shell: str) -> None:
    assert (ROOT / "completions" / FILES[shell]).read_text() == script(shell)


@EACH_SHELL
def test_commands(complete: Complete) -> None:
    offered, some, none = map(complete, ["mirrortool ", "mirrortool re", "mirrortool x"])
    assert offered == set(COMMANDS)
    assert some == {"receive", "record", "replay"}
    assert none == set()


@EACH_SHELL
def test_options_of_every_command(complete_here: Complete) -> None:
    for name, offered in zip(COMMANDS, map(complete_here, [f"mirrortool {name} --" for name in COMMANDS]), strict=True):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        shown = [each for each in command.get_params(click.Context(command)) if not getattr(each, "hidden", False)]
        known = {option for each in shown for option in each.opts}
        assert offered == {option for option in known if option.startswith("--")}, name


@EACH_SHELL
def test_values_of_choices(complete_here: Complete) -> None:
    ranges, unit, when_full, formats, shells = map(
        complete_here,
        [
            "mirrortool replay --ranges ",
            "mirrortool replay --unit ",
            "mirrortool record --when-full ",
            "mirrortool import --format ",
            "mirrortool completion ",
        ],
    )
    assert ranges == {"auto", "equal", "space", "interleaved"}
    assert unit == {"auto", "batch", "op"}
    assert when_full == {"stop", "detach"}
    assert formats == {"logwrites", "fio"}
    assert shells == set(SHELLS)


@EACH_SHELL
def test_commands_that_can_be_a_service_and_their_options(complete_here: Complete) -> None:
    names, own, theirs = map(
        complete_here, ["mirrortool unit rec", "mirrortool unit --user", "mirrortool unit record journal --when"]
    )
    assert (names, own, theirs) == ({"record"}, {"--user-name"}, {"--when-full"})


@EACH_SHELL
@pytest.mark.parametrize("line", ["record journal --source ", "replay journal mirror --volume "])
def test_names_of_volumes(complete: Complete, line: str) -> None:
    assert complete(f"mirrortool {line}") == {"disk=", "data="}


@EACH_SHELL
def test_names_of_volumes_of_an_import(complete_here: Complete) -> None:
    every, some = map(complete_here, [f"mirrortool import journal log --volume {begun}" for begun in ("", "da")])
    assert (every, some) == ({"disk", "data"}, {"data"})


@EACH_SHELL
def test_names_of_volumes_that_begin_so(complete_here: Complete) -> None:
    assert complete_here("mirrortool record journal --source di") == {"disk="}


@EACH_SHELL
@pytest.mark.parametrize("line", ["replay journal mirror --until ", "replay -q journal --until "])
def test_points(complete: Complete, line: str) -> None:
    assert complete(f"mirrortool {line}") == {"before-upgrade", "installed", "newest"}


@EACH_SHELL
def test_points_of_every_option_that_takes_one(complete_here: Complete) -> None:
    options = ["base journal --until", "log journal --since", "ship journal - --after", "promote mirror --until"]
    for offered in map(complete_here, [f"mirrortool {option} ins" for option in options]):
        assert offered == {"installed"}


@EACH_SHELL
def test_points_by_lsn_and_by_time(complete_here: Complete, place: Path) -> None:
    commits = [json.loads(line) for line in run("log", str(place / "journal"), "--all", "--json").splitlines()]
    by_lsn, by_time = map(complete_here, ["mirrortool base journal --until 1", "mirrortool base journal --until @1"])
    assert by_lsn == {str(each["lsn"]) for each in commits if str(each["lsn"]).startswith("1")}
    assert by_time == {f"@{each['time']}" for each in commits}


@EACH_SHELL
def test_nothing_where_there_is_no_journal(complete_here: Complete) -> None:
    lines = ["mirrortool replay nowhere mirror --until ", "mirrortool record --source "]
    assert list(map(complete_here, lines)) == [set(), set()]


def test_zsh_at_a_terminal(place: Path) -> None:
    """With the real line editor: what TAB completes is run, so that its complaint shows what it was."""
    tool, known, directory = require("zsh"), environment(place / "bin"), place / "zsh"
    directory.mkdir()
    (directory / "_mirrortool").write_text(script("zsh"))
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [tool, "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=place, env=known | {"TERM": "dumb"}
    )
    os.close(theirs)
    try:
        setup = f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -d {directory}/dump; print rea''dy"
        os.write(ours, f"{setup}\n".encode())
        assert "ready" in _read_until(ours, "ready")
        os.write(ours, b"mirrortool repl\t\n")
        seen = _read_until(ours, "Missing argument")
        assert "Missing argument 'JOURNAL'; see 'mirrortool replay --help'" in " ".join(seen.split())
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def _read_until(terminal: int, awaited: str, seconds: float = 20) -> str:
    """What a terminal shows, up to the end of the line with `awaited`, or until nothing more comes."""
    seen = ""
    while not re.search(rf"{awaited}[^\n]*\n", seen):
        if not select.select([terminal], [], [], seconds)[0]:
            break
        seen += os.read(terminal, 65536).decode("utf-8", "replace")
    return seen


# What completion may load: packages that cost more than the rest of the program together must wait.

_LOADS = """
import io, sys
from contextlib import redirect_stdout
from click.shell_completion import ShellComplete
from mirrortool.cli.main import cli, main

def check(what):
    loaded = {"rich", "watchdog"} & sys.modules.keys()
    if loaded:
        sys.exit(f"{what} loads {loaded}")

LINES
"""
_COMPLETES = """
for arguments, incomplete in CASES:
    found = ShellComplete(cli, {}, "mirrortool", "").get_completions(arguments, incomplete)
    assert found, arguments
    check(arguments)
"""
_HELPS = """
for arguments in CASES:
    with redirect_stdout(io.StringIO()):
        assert main(arguments) == 0
    check(arguments)
"""


def test_completion_loads_neither_rich_nor_watchdog(place: Path) -> None:
    ends = [(["replay", "journal", "mirror", "--until"], ""), (["record", "journal", "--source"], "")]
    _check_loads(_COMPLETES, [([], ""), *(([name], "--") for name in COMMANDS), *ends], place)


def test_help_loads_neither_rich_nor_watchdog(place: Path) -> None:
    _check_loads(_HELPS, [["--help"], *([name, "--help"] for name in COMMANDS), ["completion", "bash"]], place)


def _check_loads(lines: str, cases: Sequence[object], place: Path) -> None:
    program = _LOADS.replace("LINES", lines.replace("CASES", repr(cases)))
    known = environment(place / "bin")
    done = subprocess.run([sys.executable, "-c", program], cwd=place, env=known, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")
