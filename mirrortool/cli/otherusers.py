"""Warns root of other users that may write where a command is about to write."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from mirrortool import accounts
from mirrortool.cli.text import printable, tell
from mirrortool.exposure import other_writer

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def writes_in(*names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorates a command that writes in the directories that these parameters name."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def told(*arguments: Parameters.args, **values: Parameters.kwargs) -> Result:
            tell_root(*(str(values[name]) for name in names if values.get(name)), quiet=bool(values.get("quiet")))
            return function(*arguments, **values)

        return told

    return decorate


def tell_root(*paths: str, quiet: bool) -> None:
    """A line about the first of these directories in which somebody else may write; for root alone."""
    if quiet or not accounts.is_root():
        return
    for found in filter(None, map(other_writer, paths)):
        instead = f"run mirrortool as {printable(found.user)}, or " if found.user else ""
        tell(
            f"mirrortool: {printable(found.who)} may write in {printable(found.where)}, and could lead root to other "
            f"files there; {instead}keep this in a directory that only root may write"
        )
        return
