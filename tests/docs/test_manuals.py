"""The manuals say what the program does: options, exit codes, fields, formats, examples, and where the method is."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import mirrortool
from mirrortool import errors
from mirrortool.cli.main import cli
from mirrortool.journal import format as layout
from mirrortool.journal import judgement
from mirrortool.journal.bases import basefile
from mirrortool.journal.position import FrameEnd
from mirrortool.journal.unfinished import PromotionNote
from mirrortool.metrics import METRICS, PREFIX
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from tests.docs.manual import ROOT, Page, items, literal_lines, page, pages, plain, table
from tests.docs.workshop import environment, make_image, require, run
from tests.fakes.live import LiveRecorder
from tests.record.importers.logs import MARK, Logged, log_bytes

COMMANDS = cli.list_commands(click.Context(cli))
EACH_PAGE = pytest.mark.parametrize("manual", pages(), ids=lambda manual: f"{manual.name}.{manual.section}")
EACH_COMMAND = pytest.mark.parametrize("name", COMMANDS)

SIGNALS = {129, 130, 131, 143}
SIGPIPE = 141
SIGPIPE_CODE = -13
"""The same, as the parent of the process sees it."""
NAMED_BY_DATA = {"changed"}
"""Fields whose own fields are names of volumes."""
NOW_AND_THEN = {"copy.json", "detached.json", "detached.log", "forked", "promoting.json"}
"""In the directory of a journal that was without room, was promoted, or is a copy."""


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


# Every page.


@EACH_PAGE
def test_page_passes_mandoc(manual: Page) -> None:
    done = subprocess.run(
        [require("mandoc"), "-T", "lint", "-W", "warning", manual.path], capture_output=True, text=True, check=False
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


MACROS = set(
    re.findall(
        r"\w+",
        """
        Ac Ad An Ao Ap Aq Ar At Bc Bo Bq Brc Bro Brq Bsx Bx Cd Cm Dc Do Dq Dv Dx Ec Em En Eo Er Es Ev Fa Fc Fl Fn Fo Fr
        Ft Fx Ic In Lb Li Lk Ms Mt Nm No Ns Nx Oc Oo Op Ot Ox Pa Pc Pf Po Pq Qc Ql Qo Qq Sc So Sq Sx Sy Tn Ux Va Vt Xc
        Xo Xr
        """,
    )
)
"""What mdoc(7) takes for a macro wherever it stands in a heading, so that a reader does not see the word."""
MARKING = {"Ar", "Cm", "Ev", "Fl", "Oo", "Pa", "Ql", "Sy", "Va", "Xr"}
"""Those that begin the head of a list item here, to mark what it is of; Ns is another sign that macros are meant."""


@EACH_PAGE
def test_no_heading_loses_a_word(manual: Page) -> None:
    for line in manual.lines:
        if line.startswith((".Sh ", ".Ss ")):
            assert not set(line.split()[1:]) & MACROS, line
        elif line.startswith(".It "):
            _, first, *others = line.split()
            assert first in MARKING or "Ns" in others or not {first, *others} & MACROS, line


@EACH_PAGE
def test_page_fits_a_terminal(manual: Page) -> None:
    for line in literal_lines(manual.lines):
        assert len(line) <= 75, line


@EACH_PAGE
def test_references_lead_somewhere(manual: Page) -> None:
    ours = {(each.name, each.section) for each in pages()}
    for line in manual.lines:
        if line.startswith(".Xr mirrortool"):
            _, name, section, *_ = line.split()
            assert (name, section) in ours


@EACH_PAGE
def test_page_names_no_option_that_does_not_exist(manual: Page) -> None:
    old = {name for command in COMMANDS for each in _all_params_of(command_of(command)) for name in each.opts}
    known = {option for name in COMMANDS for option in options_of(command_of(name))} | old | {"--version"}
    used = {word for line in manual.lines if line.startswith(".") for word in re.findall(r"\bFl (\S+)", line)}
    assert {f"-{word}" for word in used} <= known


def test_the_page_of_the_python_api_has_every_name() -> None:
    text = " ".join(page("mirrortool", 3).part("DESCRIPTION") + page("mirrortool", 3).part("ERRORS"))
    assert set(mirrortool.__all__) - set(re.findall(r"\w+", text)) == set()


@EACH_PAGE
def test_every_page_is_found_from_the_first(manual: Page) -> None:
    """It names the first page as one to see also, and that one names it."""
    first = page("mirrortool")
    if manual.path == first.path:
        return
    assert f".Xr {manual.name} {manual.section}" in {line.removesuffix(" ,") for line in first.part("SEE ALSO")}
    assert ".Xr mirrortool 1" in {line.removesuffix(" ,") for line in manual.part("SEE ALSO")}


def test_every_command_has_a_page_and_is_listed() -> None:
    names = {each.name for each in pages() if each.section == "1"}
    assert names == {"mirrortool", *(f"mirrortool-{name}" for name in COMMANDS)}
    listed = [head for head, _ in items(page("mirrortool").part("COMMANDS"))]
    assert listed == [f"Cm {name}" for name in COMMANDS]


# Options and arguments.


def leaves(name: str) -> dict[str, click.Command]:
    """A command by its name; or those of its own, by both names."""
    command = command_of(name)
    if isinstance(command, click.Group):
        return {f"{name} {own}": inner for own, inner in command.commands.items()}
    return {name: command}


def params_of(command: click.Command) -> list[click.Parameter]:
    """Its parameters, and those of commands of its own; without old names, which still work."""
    return [each for each in _all_params_of(command) if not (isinstance(each, click.Option) and each.hidden)]


def _all_params_of(command: click.Command) -> list[click.Parameter]:
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(each for one in inner for each in one.params)]


def options_of(command: click.Command) -> set[str]:
    options = [each for each in params_of(command) if isinstance(each, click.Option)]
    return {name for option in options for name in option.opts} | {"-h", "--help"}


def arguments_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    arguments = [each for each in params_of(command) if isinstance(each, click.Argument)]
    return {argument.make_metavar(context).strip("{}[]") for argument in arguments}


@EACH_COMMAND
def test_page_has_the_options_and_arguments(name: str) -> None:
    heads = [head for head, _ in items(page(f"mirrortool-{name}").part("OPTIONS"))]
    documented = {f"-{word}" for head in heads for word in re.findall(r"\bFl (\S+)", head)}
    assert documented == options_of(command_of(name))
    assert {head.removeprefix("Ar ") for head in heads if head.startswith("Ar")} == arguments_of(command_of(name))


@EACH_COMMAND
def test_synopsis_has_the_options_and_arguments(name: str) -> None:
    text = "\n".join(page(f"mirrortool-{name}").part("SYNOPSIS"))
    command = command_of(name)
    for option in (each for each in params_of(command) if isinstance(each, click.Option)):
        assert any(re.search(rf"Fl {re.escape(each[1:])}\b", text) for each in option.opts), option.opts
    for argument in arguments_of(command):
        assert f".Ar {argument}" in text


@EACH_COMMAND
def test_page_has_defaults_and_choices(name: str) -> None:
    described = dict(items(page(f"mirrortool-{name}").part("OPTIONS")))
    for option in (each for each in params_of(command_of(name)) if isinstance(each, click.Option)):
        head, text = next(each for each in described.items() if f"Fl {option.opts[0][1:]}" in each[0])
        if option.show_default:
            assert f"The default is {option.default}." in text
        if isinstance(option.type, click.Choice):
            assert f"Ar {'|'.join(option.type.choices)}" in head


WORDS_MAX = 40


def test_each_word_is_defined_once_and_there_are_few() -> None:
    heads = [head for head, _ in items(page("mirrortool").part("WORDS"))]
    assert len(heads) <= WORDS_MAX
    words = [word for head in heads for word in head.split(" , ")]
    assert len(words) == len(set(words))
    asked = {"base", "copy", "fork", "heartbeat", "initial scan", "lag", "point", "receiver", "recorder", "sender"}
    assert asked | {"slot", "start address", "sync"} <= set(words)
    assert all(text for _, text in items(page("mirrortool").part("WORDS")))


def test_the_kinds_of_commits_are_those_of_the_code() -> None:
    text = dict(items(page("mirrortool").part("WORDS")))["commit"]
    (kinds,) = re.findall(r"Kinds are ([^.]+)\.", text)
    assert set(re.split(r", | and ", kinds)) == {kind.name.lower() for kind in CommitKind}


def test_group_has_the_options() -> None:
    heads = [head for head, _ in items(page("mirrortool").part("OPTIONS")) if head.startswith("Fl")]
    assert heads == ["Fl -version", "Fl h , Fl -help"]


def variable_of(name: str, option: click.Option) -> str:
    """What click asks the environment for: the variable that the option names, or one made of the names."""
    return str(option.envvar or f"MIRRORTOOL_{name}_{option.name}".upper())


def test_every_variable_is_listed() -> None:
    expected = {
        variable_of(words, option): f"{words} {option.opts[-1][1:]}"
        for name in COMMANDS
        for words, command in leaves(name).items()
        for option in command.params
        if isinstance(option, click.Option)
    }
    listed = dict(items(page("mirrortool-environment", 7).sub_part("Options")))
    assert {head.removeprefix("Ev "): text for head, text in listed.items()} == expected
    others = {head for head, _ in items(page("mirrortool-environment", 7).sub_part("Others"))}
    assert others == {
        "Ev MIRRORTOOL_STATE_DIRECTORY",
        "Ev MIRRORTOOL_DEBUG",
        "Ev NOTIFY_SOCKET , WATCHDOG_USEC , WATCHDOG_PID",
        "Ev TMPDIR",
    }


def test_variable_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    monkeypatch.setenv("MIRRORTOOL_INIT_PAGE_SIZE", "777")
    run("init", "journal-2", "disk=disk.img", expected=2)
    monkeypatch.setenv("MIRRORTOOL_RECORD_QUIET", "1")
    assert run("record", "journal") and "next" not in run("record", "journal")


# Exit codes.


def codes_of(manual: Page) -> list[int]:
    heads = [head for head, _ in items(manual.part("EXIT STATUS"))]
    return [int(code) for head in heads for code in head.split(" , ")]


def test_exit_codes_are_those_of_the_errors() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.exit_code for each in classes if issubclass(each, errors.MirrortoolError)}
    found = codes_of(page("mirrortool"))
    assert sorted(found) == sorted(codes | {0, 1, SIGPIPE} | SIGNALS)


@EACH_COMMAND
def test_page_has_only_known_exit_codes(name: str) -> None:
    found = codes_of(page(f"mirrortool-{name}"))
    assert found == sorted(set(found))
    assert set(found) <= set(codes_of(page("mirrortool")))


def test_no_variable_but_those_of_options_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    for name in ("MIRRORTOOL_VERSION", "MIRRORTOOL_HELP", "MIRRORTOOL_INIT_HELP"):
        monkeypatch.setenv(name, "1")
    run("init", "journal", "disk=disk.img")
    assert Path("journal").exists()


@pytest.mark.parametrize("arguments", [["log", "journal"], ["status", "journal", "--json"], ["--help"]])
def test_reader_that_went_away_ends_the_program_by_sigpipe(tmp_path: Path, arguments: list[str]) -> None:
    known = environment(tmp_path / "bin")
    make_image(tmp_path / "disk.img")
    script = "mirrortool init journal disk=disk.img; mirrortool record -q journal"
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, env=known, capture_output=True, check=True)
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "wb") as gone:
        done = subprocess.run(
            ["mirrortool", *arguments], cwd=tmp_path, env=known, stdout=gone, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (SIGPIPE_CODE, b"")


# Fields of --json.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with every kind of operation that a scan makes, a mirror with a bad page, and one kept elsewhere."""
    directory = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        make_image(Path("disk.img"))
        run("init", "journal", "disk=disk.img")
        run("record", "journal", "-q")
        run("mark", "journal", "first")
        with Path("disk.img").open("r+b") as file:
            file.write(bytes(65536))
            file.truncate(5 << 20)
        run("record", "journal", "-q")
        run("replay", "journal", "elsewhere", "-q", "--volume", "disk=copy.img")
    return directory


@pytest.fixture
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key not in NAMED_BY_DATA:
                yield from keys_of(inner)
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(keys_of, value))


def printed(*arguments: str, expected: int = 0) -> set[str]:
    lines = run(*arguments, "--json", expected=expected).splitlines()
    assert lines
    return {key for line in lines for key in keys_of(json.loads(line))}


def documented(lines: list[str]) -> set[str]:
    heads = [head for head, _ in items(lines) if head.startswith("Va ")]
    return {name for head in heads for name in head[3:].split(" , ")}


@pytest.mark.usefixtures("at_place")
def test_fields_of_record() -> None:
    assert printed("record", "journal") == documented(page("mirrortool-record").sub_part("JSON of a scan"))


@pytest.fixture
def recorded_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveRecorder]:
    """A live recording of tmp_path/journal, which is the current directory's."""
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")
    with LiveRecorder(tmp_path / "journal", "--json") as live:
        yield live


def test_fields_of_a_live_recording(recorded_live: LiveRecorder) -> None:
    assert set(keys_of(json.loads(recorded_live.stop()))) == documented(
        page("mirrortool-record").sub_part("JSON of a live recording")
    )


@pytest.mark.usefixtures("recorded_live")
def test_fields_of_control_sock() -> None:
    requests: list[dict[str, object]] = [{"request": "mark", "name": "m"}, {"request": "status"}, {"request": "x"}]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect("journal/control.sock")
        client.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in requests))
        with client.makefile() as answers:
            mark, status, refused = (json.loads(answers.readline()) for _ in requests)
    described = {field for field, _ in items(page("mirrortool-status").sub_part("JSON"))}
    assert set(status) <= {name for field in described for name in field.removeprefix("Va ").split(" , ")}
    text = page("mirrortool-journal", 5).part("CONTROL SOCKET")
    known = {match[1] for line in text if (match := re.match(r"\.Va (\w+)", line))}
    assert {"request", "recorder", "name", *mark, *refused} == known


@pytest.mark.usefixtures("at_place")
def test_fields_of_replay(tmp_path: Path) -> None:
    mirror, trace = str(tmp_path / "mirror"), tmp_path / "trace"
    manual = page("mirrortool-replay")
    assert printed("replay", "journal", mirror, "--trace", str(trace)) == documented(manual.sub_part("JSON"))
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert lines and set(keys_of(lines)) == documented(manual.sub_part("Trace"))


@pytest.mark.usefixtures("at_place")
def test_fields_of_a_dry_run(tmp_path: Path) -> None:
    found = printed("replay", "journal", str(tmp_path / "mirror"), "--dry-run")
    assert found == documented(page("mirrortool-replay").sub_part("JSON of a dry run"))
    assert not (tmp_path / "mirror").exists()


def test_fields_of_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    run("record", "journal", "-q")
    run("replay", "journal", "mirror", "-q")
    assert printed("base", "journal") == documented(page("mirrortool-base").sub_part("JSON"))
    assert printed("prune", "journal", "--keep", "1d") == documented(page("mirrortool-prune").sub_part("JSON"))
    assert printed("slot", "list", "journal") == documented(page("mirrortool-slot").sub_part("JSON"))


@pytest.mark.usefixtures("at_place")
def test_fields_of_verify(tmp_path: Path) -> None:
    run("replay", "journal", str(tmp_path / "mirror"), "-q")
    with (tmp_path / "mirror/volumes/disk.img").open("r+b") as file:
        file.seek(1 << 19)
        file.write(b"rot")
    manual = page("mirrortool-verify")
    assert printed("verify", str(tmp_path / "mirror"), expected=1) == documented(manual.sub_part("JSON of a mirror"))
    assert printed("verify", "journal") == documented(manual.sub_part("JSON of a journal"))


@pytest.fixture
def promoted(place: Path, tmp_path: Path) -> Path:
    """A mirror that was promoted, with a copy of the journal."""
    copy, mirror = tmp_path / "received", tmp_path / "promoted"
    copy.mkdir()
    shutil.copy(place / "journal/journal.json", copy)
    shutil.copytree(place / "journal/files", copy / "files")
    run("replay", str(copy), str(mirror), "-q")
    run("promote", str(mirror), "--yes", "-q")
    return mirror


@pytest.mark.usefixtures("at_place")
def test_fields_of_status(recorded_live: LiveRecorder, place: Path, promoted: Path) -> None:
    paths = str(recorded_live.journal), str(place / "elsewhere"), str(promoted), "nothing"
    found = printed("status", *paths, expected=14)
    assert found == documented(page("mirrortool-status").sub_part("JSON"))


def test_fields_of_promote(place: Path, promoted: Path, tmp_path: Path) -> None:
    run("replay", str(place / "journal"), str(tmp_path / "mirror"), "-q")
    found = printed("promote", str(tmp_path / "mirror"), "--dry-run") | printed("promote", str(promoted))
    assert found == documented(page("mirrortool-promote").sub_part("JSON"))


def test_fields_of_promoting_json(promoted: Path) -> None:
    mirror = Mirror(str(promoted))
    assert mirror.promoted is not None
    end = FrameEnd(mirror.checkpoint.position, 1, 128)
    note = PromotionNote(mirror.path, mirror.uuid, end, mirror.promoted.epoch, 1)
    known = documented(page("mirrortool-journal", 5).lines)
    known |= {match[1] for line in page("mirrortool-journal", 5).lines if (match := re.match(r"\.Va (\w+)", line))}
    assert set(keys_of(note.to_json())) <= known


@pytest.mark.usefixtures("at_place")
def test_fields_of_ship(tmp_path: Path) -> None:
    assert printed("ship", "journal", str(tmp_path / "copy"), "--no-slot") == documented(
        page("mirrortool-ship").sub_part("JSON")
    )


def test_fields_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("init", "journal", "disk=disk.img:1M")
    Path("log").write_bytes(log_bytes([Logged(flags=MARK, text=b"no name")]))
    assert printed("import", "journal", "log", "--format", "logwrites") == documented(
        page("mirrortool-import").sub_part("JSON")
    )


@pytest.mark.usefixtures("at_place")
def test_fields_of_log() -> None:
    manual = page("mirrortool-log")
    assert printed("log", "journal") == documented(manual.sub_part("JSON"))
    assert printed("log", "journal", "--all") < documented(manual.sub_part("JSON"))
    assert printed("log", "journal", "--ops") == documented(manual.sub_part("JSON of operations"))


def test_every_json_option_has_fields() -> None:
    for name in COMMANDS:
        has_json = "--json" in options_of(command_of(name))
        assert has_json == any(line.startswith(".Ss JSON") for line in page(f"mirrortool-{name}").lines), name


# Examples.


@EACH_PAGE
def test_examples_run(manual: Page, tmp_path: Path) -> None:
    commands = [each.command for each in manual.examples() if not each.is_special]
    if not commands:
        assert manual.section != "1", "a command's page has examples"
        return
    where = tmp_path / "examples"
    where.mkdir()
    make_image(where / "disk.img")
    known = environment(tmp_path / "bin")
    for command in commands:
        done = subprocess.run(["sh", "-euc", command], cwd=where, env=known, capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@EACH_COMMAND
def test_a_page_begins_with_an_example(name: str) -> None:
    """Right after the first paragraph; each is one of those that run."""
    manual = page(f"mirrortool-{name}")
    description = manual.part("DESCRIPTION")
    first = next(i for i, line in enumerate(description) if line.startswith((".Bd -literal", ".Ss")))
    commands = Page.commands(literal_lines(description[first : description.index(".Ed", first)]))
    assert commands and set(commands) <= set(manual.examples())
    assert all(each.command.startswith(f"mirrortool {name}") for each in commands)


SPECIAL = [each.command for manual in pages() for each in manual.examples() if each.is_special]


@pytest.mark.parametrize("command", SPECIAL)
def test_special_example_runs(command: str) -> None:
    names = re.findall(r"mirrortool (\w+)", command)
    assert all(name in COMMANDS for name in names)
    pytest.skip("needs root or a device that the reader names")


def test_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    commands = list(literal_lines(page("mirrortool").sub_part("Quick start")))
    assert len(commands) == 4
    for command in commands:
        run(*command.removeprefix("$ mirrortool ").split())


# Formats.


def test_metrics_are_those_of_the_table() -> None:
    manual = page("mirrortool-metrics", 5)
    written = [(head, text) for head, text in items(manual.part("METRICS")) if "_" in head]
    assert written == [
        (f"Va {PREFIX}{each.name}", f"{each.kind.capitalize()} by {', '.join(each.labels)}. {each.help}")
        for each in METRICS
    ]
    labels = {head.removeprefix("Va ") for head, _ in items(manual.sub_part("Labels"))}
    assert labels == {label for each in METRICS for label in each.labels}


def format_tables() -> dict[str, list[tuple[str, ...]]]:
    """The tables of format.py's docstring by heading, each row as a tuple."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    heading = ""
    for line in (layout.__doc__ or "").splitlines():
        if re.fullmatch(r"(File|Frame) (header|body)", line):
            heading = line
            tables[heading] = []
        elif not line.startswith("    "):
            continue
        elif match := re.fullmatch(r" {4}(\d+) +(\d+) +(\w+) +(.+)| {4}(\w+) {2,}(.+)", line):
            tables[heading].append(tuple(filter(None, match.groups())))
        elif line.startswith(" " * 12):
            *row, meaning = tables[heading][-1]
            tables[heading][-1] = (*row, f"{meaning} {line.strip()}")
    return tables


@pytest.mark.parametrize(
    ("heading", "struct"), [("header", basefile.HEADER), ("volume", basefile.VOLUME), ("end record", basefile.END)]
)
def test_tables_of_a_base_are_those_of_the_code(heading: str, struct: Any) -> None:
    lines = page("mirrortool-journal", 5).sub_part(f"Base {heading}")
    rows = table(lines)
    in_code = " ".join((basefile.__doc__ or "").split())
    assert all(" ".join(row) in in_code for row in rows)
    assert lines[0].startswith(f"{struct.size} bytes")
    assert sum(int(size) for _, size, *_ in rows) == struct.size


@pytest.mark.parametrize("heading", ["File header", "Frame header", "Frame body"])
def test_format_table_is_that_of_the_code(heading: str) -> None:
    rows = format_tables()[heading]
    assert len(rows) > 5
    assert table(page("mirrortool-journal", 5).sub_part(heading)) == rows


HEADERS = [("File header", layout.FILE_HEADER), ("Frame header", layout.FRAME_HEADER)]


@pytest.mark.parametrize(("heading", "struct"), HEADERS)
def test_format_table_has_no_gap(heading: str, struct: Any) -> None:
    lines = page("mirrortool-journal", 5).sub_part(heading)
    end = 0
    for offset, size, *_ in table(lines):
        assert int(offset) == end
        end += int(size)
    assert end == struct.size
    assert lines[0] == f"{end} bytes."


def test_format_has_the_chain_value() -> None:
    last = (layout.__doc__ or "").strip().split("\n\n")[-1]
    assert " ".join(last.split()) in page("mirrortool-journal", 5).plain()


def test_limits_are_those_of_the_code() -> None:
    rows = [(value, meaning) for value, meaning in table(page("mirrortool-journal", 5).sub_part("Limits"))]
    limits = [value_of(value) for value, _ in rows]
    assert limits == [
        layout.OPERATIONS_MAX,
        layout.PAYLOAD_BYTES_MAX,
        layout.LZ4_RATIO_MAX,
        layout.FILE_BYTES_TARGET,
        layout.FILE_AGE_NS_MAX // 10**9,
        64,
        (1 << 63) - 1,
        (1 << 62) - 1,
    ]


def test_torn_or_damage_table_is_that_of_the_code() -> None:
    rows: list[tuple[str, str]] = []
    for line in (judgement.__doc__ or "").splitlines():
        if match := re.fullmatch(r" {4}(\S.+?) {2,}(.+)", line):
            rows.append((match[1], match[2]))
        elif rows and line.startswith(" " * 20):
            rows[-1] = rows[-1][0], f"{rows[-1][1]} {line.strip()}"
    assert len(rows) > 4
    assert table(page("mirrortool-journal", 5).sub_part("Torn tail or damage")) == rows


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(
    ("manual", "path"),
    [
        ("mirrortool-journal", "journal/journal.json"),
        ("mirrortool-journal", "journal/local.json"),
        ("mirrortool-journal", "journal/recorder.json"),
        ("mirrortool-mirror", "elsewhere/mirror.json"),
        ("mirrortool-mirror", "elsewhere/checkpoint.json"),
        ("mirrortool-mirror", "elsewhere/last-replay.json"),
    ],
)
def test_fields_of_small_files(manual: str, path: str) -> None:
    text = page(manual, 5).lines
    known = {match[1] for line in text if (match := re.match(r"\.(?:It )?Va (\w+)", line))}
    assert set(keys_of(json.loads(Path(path).read_text()))) - {"disk"} <= known


@pytest.mark.usefixtures("at_place")
@pytest.mark.parametrize(("manual", "path"), [("mirrortool-journal", "journal"), ("mirrortool-mirror", "elsewhere")])
def test_directory_is_described(manual: str, path: str) -> None:
    heads = {head.removeprefix("Pa ").rstrip("/") for head, _ in items(page(manual, 5).sub_part("Directory"))}
    is_journal = manual == "mirrortool-journal"
    now_and_then = {"control.sock", "reserve", "seen.json", *NOW_AND_THEN} if is_journal else set()
    assert now_and_then <= heads
    assert {each.name for each in Path(path).iterdir()} == heads - now_and_then


def test_directory_of_a_live_recording_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(Path("disk.img"))
    run("init", "journal", "disk=disk.img")
    heads = {
        head.removeprefix("Pa ").rstrip("/") for head, _ in items(page("mirrortool-journal", 5).sub_part("Directory"))
    }
    with LiveRecorder(tmp_path / "journal", "--when-full", "detach"):
        # What ends with .new is there only while the recorder replaces a small file.
        names = {each.name for each in Path("journal").iterdir() if each.suffix != ".new"}
        assert names == heads - NOW_AND_THEN - {"slots"}


# The design.


FIGURES = {
    "1": range(121, 127),
    "6": range(610, 621, 10),
    "8": range(810, 841, 10),
    "9": range(910, 981, 10),
    "10": range(982, 987, 2),
    "11": [*range(1102, 1155, 2), *range(1160, 1187, 2)],
}


def numerals() -> dict[int, str]:
    rows = [re.split(r" {2,}", line) for line in literal_lines(page("mirrortool-method", 7).part("FIGURES"))]
    assert all(len(row) == 3 for row in rows)
    found = {int(numeral): name for numeral, _, name in rows}
    assert len(found) == len(rows)
    return found


def test_every_numeral_is_in_the_table() -> None:
    assert list(numerals()) == list(itertools.chain.from_iterable(FIGURES.values()))


@pytest.mark.parametrize("name", sorted(set(numerals().values())))
def test_name_in_the_table_exists(name: str) -> None:
    assert find(name) is not None


def find(name: str) -> Any:
    """What a dotted name below mirrortool leads to: a module, or something in one."""
    parts = name.split(".")
    found: Any = importlib.import_module("mirrortool")
    for i, part in enumerate(parts):
        try:
            found = importlib.import_module(".".join(["mirrortool", *parts[: i + 1]]))
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found


def value_of(text: str) -> float:
    """A number as the pages write it, with a unit or as powers of 2."""
    if match := re.fullmatch(r"2\^(\d+)-1", text):
        return (1 << int(match[1])) - 1
    number, _, unit = text.partition(" ")
    return int(number) * {"": 1, "B": 1, "s": 1, "MiB": 1 << 20}[unit]


@pytest.mark.parametrize("line", list(literal_lines(page("mirrortool-method", 7).part("LIMITS"))))
def test_limit_is_that_of_the_code(line: str) -> None:
    value, _, name = re.split(r" {2,}", line)
    assert find(name) == value_of(value)


def test_layers_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    expected = [{name for name in layer.split(" | ") if "(" not in name} for layer in contract["layers"]]
    written = [set(line.split()) for line in literal_lines(page("mirrortool-design", 7).sub_part("Layers"))]
    assert written == [layer for layer in expected if layer]


def test_every_step_that_the_code_names_is_in_the_table() -> None:
    known = set(numerals())
    for path in (ROOT / "mirrortool" / "replay").glob("*.py"):
        named = {int(numeral) for numeral in re.findall(r"\b1(?:10|11|12|13|14|15|16|17|18)\d\b", path.read_text())}
        assert named <= known, path


def test_plain_text_of_a_page() -> None:
    assert plain([".Fl x .", "and", r".Ql \-10m ,", "so"]) == "x. and -10m, so"
