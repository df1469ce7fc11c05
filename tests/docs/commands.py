"""The commands, their options and arguments as the program has them; and parameters of a test for each of them."""

from __future__ import annotations

import click
import pytest

from mirrortool.cli.main import cli
from tests.docs.manual import pages

COMMANDS = cli.list_commands(click.Context(cli))
EACH_PAGE = pytest.mark.parametrize("manual", pages(), ids=lambda manual: f"{manual.name}.{manual.section}")
EACH_COMMAND = pytest.mark.parametrize("name", COMMANDS)


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def leaves(name: str) -> dict[str, click.Command]:
    """A command by its name; or those of its own, by both names."""
    command = command_of(name)
    if isinstance(command, click.Group):
        return {f"{name} {own}": inner for own, inner in command.commands.items()}
    return {name: command}


def params_of(command: click.Command) -> list[click.Parameter]:
    """Its parameters, and those of commands of its own; without old names, which still work."""
    return [each for each in all_params_of(command) if not (isinstance(each, click.Option) and each.hidden)]


def all_params_of(command: click.Command) -> list[click.Parameter]:
    """Old names included."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(each for one in inner for each in one.params)]


def options_of(command: click.Command) -> set[str]:
    options = [each for each in params_of(command) if isinstance(each, click.Option)]
    return {name for option in options for name in option.opts} | {"-h", "--help"}


def arguments_of(command: click.Command) -> set[str]:
    context = click.Context(command)
    arguments = [each for each in params_of(command) if isinstance(each, click.Argument)]
    return {argument.make_metavar(context).strip("{}[]") for argument in arguments}
