"""The manuals say what the program does: options, exit codes, examples, and where the method is."""

from __future__ import annotations

import importlib
import inspect
import io
import itertools
import os
import re
import subprocess
import textwrap
import tokenize
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

import mirrortool
from mirrortool import errors
from mirrortool.operation import CommitKind
from tests.docs.commands import (
    COMMANDS,
    EACH_COMMAND,
    EACH_PAGE,
    all_params_of,
    arguments_of,
    command_of,
    leaves,
    options_of,
    params_of,
)
from tests.docs.manual import ROOT, Page, items, literal_lines, page, pages, plain, value_of
from tests.docs.workshop import environment, make_image, require, run

SIGNALS = {129, 130, 131, 143}
SIGPIPE = 141
SIGPIPE_CODE = -13
"""The same, as the parent of the process sees it."""


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
    old = {name for command in COMMANDS for each in all_params_of(command_of(command)) for name in each.opts}
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
        "Ev NO_COLOR , TERM",
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


# Examples.


PLAIN = re.compile(r"mirrortool( |\\\n|[\w./:@=,%+-])+")
"""A command of which a shell would only take the words apart."""


@EACH_PAGE
def test_examples_run(manual: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shell, where that matters: else in this process, as most of the cost is the start of another."""
    commands = [each.command for each in manual.examples() if not each.is_special]
    if not commands:
        assert manual.section != "1", "a command's page has examples"
        return
    where = tmp_path / "examples"
    where.mkdir()
    make_image(where / "disk.img")
    monkeypatch.chdir(where)
    known = environment(tmp_path / "bin")
    for command in commands:
        if PLAIN.fullmatch(command):
            run(*command.replace("\\\n", " ").split()[1:])
            continue
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


# The design.


FIGURES = {
    "1": range(121, 127),
    "2": range(200, 231, 10),
    "3": range(300, 321, 10),
    "4": range(400, 451, 10),
    "5": range(500, 541, 10),
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


@pytest.mark.parametrize(("numeral", "name"), [(key, name) for key, name in numerals().items() if name != "none"])
def test_numeral_stands_in_a_comment_of_what_the_table_names(numeral: int, name: str) -> None:
    """Or in its docstring; of a class, in that of the class, and of an attribute, in that of its class."""
    assert str(numeral) in re.findall(r"\d+", said_of(name))


def said_of(name: str) -> str:
    """Docstring and comments of a module, class, method or attribute."""
    found = find(name)
    if inspect.ismodule(found):
        return inspect.getdoc(found) or ""
    if inspect.isclass(found):
        return inspect.getdoc(found) or ""
    if not inspect.isfunction(found):
        return inspect.getdoc(find(name.rpartition(".")[0])) or ""
    source = textwrap.dedent(inspect.getsource(found))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([inspect.getdoc(found) or "", *(each.string for each in tokens if each.type == tokenize.COMMENT)])


def test_every_numeral_that_the_code_does_not_have_is_a_departure() -> None:
    """By itself, or in `FIRST to LAST`; what is not the method, but the art before it, below its figure."""
    method = page("mirrortool-method", 7)
    text = "\n".join([*method.part("FIGURES"), *method.part("DEPARTURES")])
    ranges = [range(int(first), int(last) + 1) for first, last in re.findall(r"(\d{3,4}) to (\d{3,4})", text)]
    alone = set(map(int, re.findall(r"(?<!\d)\d{3,4}(?=[,.) ])(?! {2})", text)))
    missing = [numeral for numeral, name in numerals().items() if name == "none"]
    assert len(missing) > 8
    assert [each for each in missing if each not in alone and not any(each in known for known in ranges)] == []


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
