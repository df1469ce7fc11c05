"""A small file is there whole or not at all, and says what is wrong with it in one error."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from mirrortool import files, jsonfile
from mirrortool.errors import AccessError, NoSpaceError, NotAMirrorError
from mirrortool.jsonfile import Fields

GOOD: dict[str, Any] = {
    "n": 5, "minus": -5, "text": "words", "yes": True, "hex": "00ff", "object": {"n": 1}, "objects": [{}, {"n": 2}],
    "null": None,
}  # fmt: skip


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "small.json")


def load(path: str) -> Fields:
    fields = jsonfile.load(path, NotAMirrorError)
    assert fields is not None
    return fields


def test_what_is_saved_is_loaded(path: str) -> None:
    jsonfile.save(path, GOOD)
    fields = load(path)
    assert fields.integer("n") == 5
    assert fields.signed("minus") == -5
    assert fields.text("text") == "words"
    assert fields.flag("yes") is True
    assert fields.hexadecimal("hex", 2) == b"\0\xff"
    assert fields.object("object").integer("n") == 1
    assert [each.names() for each in fields.objects("objects")] == [[], ["n"]]
    assert [name for name, _ in Fields({"a": {}, "b": {}}, path, NotAMirrorError).named_objects()] == ["a", "b"]
    assert "n" in fields
    assert "null" not in fields
    assert "other" not in fields


def test_a_missing_file_is_none(path: str) -> None:
    assert jsonfile.load(path, NotAMirrorError) is None


def test_a_path_that_is_no_utf8_survives(path: str) -> None:
    jsonfile.save(path, {"path": "/disk-\udcff"})
    assert load(path).text("path") == "/disk-\udcff"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b"1", b"null", b'"x"', b'{"a": 1', b"\xff\xfe", b"\0" * 100, b"[" * 100_000, b"9" * 5000,
     b'{"a": 1}{', b'{"a": \xff}'],
)  # fmt: skip
def test_what_does_not_parse_is_named(path: str, data: bytes) -> None:
    pathlib.Path(path).write_bytes(data)
    with pytest.raises(NotAMirrorError) as caught:
        load(path)
    assert caught.value.where == path


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (lambda fields: fields.integer("x", 10), [None, -1, 11, True, 1.0, "1", [], {}, 1 << 64]),
        (lambda fields: fields.integer("x"), [1 << 64, -1]),
        (lambda fields: fields.signed("x"), [1 << 64, -(1 << 64), True, 1.0, None, "1"]),
        (lambda fields: fields.text("x"), [None, 1, True, [], {}]),
        (lambda fields: fields.flag("x"), [None, 0, 1, "true"]),
        (lambda fields: fields.hexadecimal("x", 2), ["", "00", "000000", "0g00", " 00ff", "00 f", "00 ff", "٠٠٠٠", 0]),
        (lambda fields: fields.object("x"), [None, [], 1, "{}"]),
        (lambda fields: fields.objects("x"), [None, {}, [1], [{}, None], "[]"]),
    ],
    ids=["integer", "largest", "signed", "text", "flag", "hexadecimal", "object", "objects"],
)
def test_a_field_of_another_kind_is_refused(read: Callable[[Fields], object], values: list[object]) -> None:
    for value in values:
        with pytest.raises(NotAMirrorError, match="'x' is missing or not valid"):
            read(Fields({"x": value}, "f", NotAMirrorError))
    with pytest.raises(NotAMirrorError):
        read(Fields({}, "f", NotAMirrorError))


def test_a_failed_save_leaves_the_old_file(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonfile.save(path, {"n": 1})

    def full(_: object, __: object, ___: int) -> None:
        raise NoSpaceError("full")

    monkeypatch.setattr(files.File, "pwrite", full)
    with pytest.raises(NoSpaceError):
        jsonfile.save(path, {"n": 2})
    assert load(path).integer("n") == 1


def test_a_longer_leftover_of_an_interrupted_save_does_no_harm(path: str) -> None:
    pathlib.Path(f"{path}.new").write_bytes(b"x" * 10_000)
    jsonfile.save(path, {"n": 2})
    assert load(path).integer("n") == 2


def test_a_file_is_durable_before_it_has_its_name(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(files.File, "fdatasync", lambda _: order.append("fdatasync"))
    monkeypatch.setattr(files.os, "rename", lambda *_: order.append("rename"))
    monkeypatch.setattr(files, "sync_directory", lambda _: order.append("sync directory"))
    jsonfile.save(path, {"n": 1})
    assert order == ["fdatasync", "rename", "sync directory"]


def test_a_directory_in_its_place_is_a_host_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AccessError):
        jsonfile.load(str(tmp_path), NotAMirrorError)
