"""mirrortool-testing(7) names tests that are there, and every folder of the net."""

from __future__ import annotations

import re

import pytest

from tests.docs.manual import ROOT, literal_lines, page

PAGE = page("mirrortool-testing", 7)
TEXT = "\n".join(PAGE.lines).replace("\\-", "-")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"tests/[\w/.]*\w", TEXT))))
def test_each_path_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"-m (tests\.\w+)", TEXT))))
def test_each_command_is_there(name: str) -> None:
    assert (ROOT / name.replace(".", "/") / "__main__.py").is_file()


def test_each_list_of_mutants_has_its_command() -> None:
    from tests.mutation.__main__ import LISTS

    commands = {line.replace("\\-", "-").strip() for line in literal_lines(PAGE.part("COMMANDS"))}
    assert {f"python -m tests.mutation {name}" for name in LISTS} <= commands
