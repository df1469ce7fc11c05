"""`mirrortool completion`: the scripts that shells read; the files in completions/ are its output."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script that asks the program itself at every TAB."""
    from mirrortool.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    completer = kind(cli, {}, "mirrortool", "_MIRRORTOOL_COMPLETE")
    return completer.source_template % completer.source_vars()


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    An installed mirrortool has them already; print one where the shell does not find it.
    """
    click.echo(script(shell), nl=False)
