"""Warns of environment variables that look like options and are none: one that is misspelt would silently do nothing.

Of the options only those of the command that runs are looked at, so that no other command has to be imported: a
variable of another command is left to that. Not here: what a variable does (click).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

import click

from mirrortool.cli.text import printable, tell

PREFIX = "MIRRORTOOL_"
OTHERS = {"MIRRORTOOL_DEBUG", "MIRRORTOOL_STATE_DIRECTORY"}
"""Variables that are no options; see mirrortool-environment(7)."""
_ALIKE = 0.75


def tell_unknown(running: str, commands: Collection[str], find: Callable[[], click.Command | None]) -> None:
    """A line on standard error for each variable that is no option of the command that runs, nor of another one.

    Args:
        running: the name of the command.
        commands: the names of all of them.
        find: returns the command that runs.
    """
    names = sorted(name for name, value in os.environ.items() if name.startswith(PREFIX) and value)
    others = tuple(f"{PREFIX}{command.upper()}_" for command in commands if command != running)
    asked = [name for name in names if name not in OTHERS and not name.startswith(others)]
    if not asked:
        return
    known = OTHERS | (variables_of(command) if (command := find()) else set())
    for name in asked:
        if name not in known:
            tell(f"mirrortool: {printable(name)}: there is no such option; {_near(name, known, commands)}")


def variables_of(command: click.Command) -> set[str]:
    """The variables of its options, and of those of its own commands."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = {str(each.envvar) for each in command.params if isinstance(each, click.Option) and each.envvar}
    return own.union(*map(variables_of, inner))


def _near(name: str, known: Iterable[str], commands: Iterable[str]) -> str:
    """What may have been meant."""
    from difflib import get_close_matches

    # Without the beginning that all have, which would make any two of them look alike.
    words = name.removeprefix(PREFIX)
    found = get_close_matches(words, [each.removeprefix(PREFIX) for each in known], 1, _ALIKE)
    if not found:  # a command that is misspelt
        command, _, option = words.partition("_")
        alike = get_close_matches(command, [each.upper() for each in commands], 1, _ALIKE)
        found = [f"{each}_{option}" for each in alike if each != command]
    return f"near: {PREFIX}{found[0]}" if found else "see mirrortool-environment(7)"
