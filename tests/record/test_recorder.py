"""The recorder: whatever clients do, journal, volumes and mirrors are what they were told."""

from __future__ import annotations

import random

import pytest

from mirrortool.change import Change
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from tests.fakes.recorders import (
    Model,
    check_everywhere,
    check_reads,
    drop,
    random_changes,
    small_scale,
)
from tests.fakes.volumes import make_primary, small_journal_files


def run_sessions(directory: str, seed: int, page_size: int, sessions: int, steps: int) -> None:
    """Recorders one after another, stopped cleanly or dropped, doing anything that a client can ask for."""
    chance = random.Random(f"{seed} {page_size}")
    pages = chance.randrange(1, 60 if page_size < 65536 else 20)
    sizes = {
        "disk": pages * page_size + chance.choice([0, 1, page_size - 1]),
        "log": chance.randrange(1, 9 * page_size),
    }
    contents = {name: chance.choice([bytes(size), chance.randbytes(size)]) for name, size in sizes.items()}
    primary, model = make_primary(directory, contents, page_size), Model(contents)
    for _ in range(sessions):
        recorder = Recorder(primary.journal_path, background=chance.random() < 0.3)
        for _ in range(chance.randrange(steps)):
            one_step(recorder, model, chance)
        if chance.random() < 0.5:
            recorder.close()
            assert primary.contents() == model.contents
        else:
            drop(recorder)
    with Recorder(primary.journal_path) as recorder:
        InitialScan(recorder).run()
        for name, content in model.contents.items():
            assert recorder.read(name, 0, len(content)) == content
    check_everywhere(primary, model.state())


def one_step(recorder: Recorder, model: Model, chance: random.Random) -> None:
    name = chance.choice(list(model.contents))
    step = chance.choice(
        ["change"] * 8 + ["read"] * 6 + ["write", "zero", "flush", "back", "checkpoint", "initial", "scan"]
    )
    if step == "change":
        changes = random_changes(chance, len(model.contents[name]), recorder.page_size)
        recorder.change(name, changes)
        model.change(name, changes)
    elif step == "read":
        check_reads(recorder, model, chance)
    elif step == "write":
        recorder.write(name, 0, b"w", fua=True)
        model.change(name, [Change(0, 1, b"w")])
    elif step == "zero":
        size = len(model.contents[name])
        recorder.zero(name, 0, size, fua=chance.random() < 0.5)
        model.change(name, [Change(0, size, None)])
    elif step == "flush":
        recorder.flush()
        assert recorder.statistics().durable_lsn == recorder.statistics().head_lsn
    elif step in ("back", "checkpoint"):
        recorder.write_back(checkpoint=step == "checkpoint")
    elif step == "initial":
        InitialScan(recorder).run()
        assert not recorder.incomplete
    else:
        scan_with_writes_between(recorder, model, chance)


def scan_with_writes_between(recorder: Recorder, model: Model, chance: random.Random) -> None:
    """An initial scan of which every piece is changed while it is read."""
    scan = InitialScan(recorder)
    real = recorder.capture.watch

    def watch(page: int, count: int) -> None:
        real(page, count)
        if chance.random() < 0.5:
            name = chance.choice(list(model.contents))
            changes = random_changes(chance, len(model.contents[name]), recorder.page_size)
            recorder.change(name, changes)
            model.change(name, changes)
        if chance.random() < 0.3:
            recorder.write_back(checkpoint=chance.random() < 0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder.capture, "watch", watch)
        scan.run()


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("seed", range(14))
def test_journal_volumes_and_mirror_are_what_clients_did(
    directory: str, seed: int, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_scale(monkeypatch, page_size)
    small_journal_files(monkeypatch, 40 * page_size)
    run_sessions(directory, seed, page_size, sessions=4, steps=30)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1600))
def test_soak_journal_volumes_and_mirror_are_what_clients_did(
    directory: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_size = (512, 4096, 65536)[seed % 3]
    small_scale(monkeypatch, page_size)
    small_journal_files(monkeypatch, 40 * page_size)
    run_sessions(directory, seed, page_size, sessions=8, steps=80)
