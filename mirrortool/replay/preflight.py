"""What replay checks before it writes: that the mirror is as it was left, and that the journal asks for no more space
than it may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mirrortool.errors import UnusableVolumeError
from mirrortool.operation import Batch
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.store.sampling import first_changed, sample_pages
from mirrortool.volume import VolumeSet
from mirrortool.wording import exact_bytes


def check_sizes(volumes: VolumeSet, store: Store, max_bytes: int) -> None:
    """The volumes fit where they are kept, and in what the user allows a journal to ask for.

    Raises:
        UnusableVolumeError: they do not.
    """
    check_total(volumes, max_bytes)
    for volume in volumes:
        capacity = store.capacity(volume.name)
        if capacity is not None and volume.size > capacity:
            grows = f"volume {volume.name} grows to {exact_bytes(volume.size)}"
            raise UnusableVolumeError(
                f"{grows}, its device or export has {exact_bytes(capacity)}",
                remedy="make a mirror on a larger one",
            )


def check_total(volumes: VolumeSet, max_bytes: int) -> None:
    """Raise UnusableVolumeError if the volumes are larger together than that."""
    total = sum(volume.size for volume in volumes)
    if total > max_bytes:
        raise UnusableVolumeError(
            f"the journal's volumes have {exact_bytes(total)} together, more than {exact_bytes(max_bytes)}",
            remedy="if that is right, allow it with --max-size",
        )


def find_changed_page(
    store: Store,
    sums: PageSums,
    in_flight: Iterable[Batch] = (),
    known_bad: Sequence[tuple[int, int]] = (),
    *,
    names: Collection[str] | None = None,
) -> int | None:
    """A page that differs from its sum, among samples; None if all are right. See store/sampling.py.

    Args:
        known_bad: runs of pages that a verification found already; they tell nothing new.
        names: of the volumes that are looked at; by default all.
    """
    samples = sample_pages(store, sums, in_flight, names=names)
    return first_changed(sample for sample in samples if not _is_in(sample.page, known_bad))


def _is_in(page: int, runs: Sequence[tuple[int, int]]) -> bool:
    return any(first <= page < first + count for first, count in runs)
