"""What a call that makes something durable does, when it does not: mutants call these in the place of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mirrortool import files, jsonfile


def rename(source: str, target: str) -> None:
    """files.rename."""
    files._on_path(source, "rename", files.os.rename, target)


def remove_durably(path: str) -> None:
    """files.remove_durably."""
    files.remove(path)


def make_directory(path: str, **options: Any) -> None:
    """files.make_directory."""
    _without_names(files.make_directory, path, **options)


def claim_directory(path: str, *arguments: Any) -> None:
    """files.claim_directory."""
    _without_names(files.claim_directory, path, *arguments)


def make_link(target: str, path: str) -> None:
    """files.make_link."""
    _without_names(files.make_link, target, path)


def replace_small(path: str, data: bytes) -> None:
    """files.replace_small: the data is durable, its name is not."""
    _without_names(files.replace_small, path, data)


def save(path: str, values: Mapping[str, Any]) -> None:
    """jsonfile.save."""
    _without_names(jsonfile.save, path, values)


def _without_names(function: Callable[..., None], *arguments: Any, **options: Any) -> None:
    real = files.sync_directory
    files.sync_directory = lambda _path: None
    try:
        function(*arguments, **options)
    finally:
        files.sync_directory = real
